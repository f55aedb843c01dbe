"""What people mistype, in a table: one clear line with the nearest valid name, exit code 2, and nothing is run.

Through the real `main` of the grid and of each command beside it.
"""

import re

import pytest

from quantlab.cli import fetch, merge, recommend, rescore, sbatch, status, sync, verify, work
from quantlab.cli.keys import groups
from quantlab.cli.main import main as named
from quantlab.cli.run import main
from quantlab.config.hydra import composed
from quantlab.config.key_names import KEYS, kind_of
from quantlab.export import __main__ as export
from quantlab.grid.run import Grid
from quantlab.report import __main__ as report
from quantlab.util.console import MISUSED
from quantlab.util.errors import ConfigError

LONG = "x" * 300  # of no file: 255 bytes are the most
GRID = [
    # names of options
    ("quant=hqq_int5", "quant=hqq_int5: no such quant; did you mean 'hqq_int"),
    ("model=smal", "model=smal: no such model; did you mean 'small'?"),
    ("model=openai/whisper-small", "model=openai/whisper-small: no such model; did you mean 'small'?"),
    ("model.name=nanoo", "model.name='nanoo': no such checkpoint ships with quantlab; did you mean 'nano'?"),
    ("device=gpu", "device=gpu: no such device; did you mean 'cuda'?"),
    ("device=cuda:0", "device=cuda:0: no such device; did you mean 'cuda'?"),
    ("device=tpu", "device=tpu: no such device; did you mean 'cpu'? allowed: auto, cpu, cuda, mps"),
    ("dataset=librspeech", "dataset=librspeech: no such dataset; did you mean 'librispeech'?"),
    ("protocol=fast", "protocol=fast: no such protocol; allowed: adaptive, careful, paper, quick"),
    ("experiment=demos", "experiment=demos: no such experiment; did you mean 'demo'?"),
    ("-m quant=none,quanto_int9", "quant=quanto_int9: no such quant; did you mean 'quanto_int"),
    (
        "quant=int8",
        "no such quant; did you mean 'bnb_int8', 'ct2_int8', 'hqq_int8', 'ort_int8', 'ov_int8', 'quanto_int8', "
        "'rtn_int8', 'smoothquant_int8' or 'torch_int8'?",
    ),
    ("quant=HQQ_int4", "quant=HQQ_int4: no such quant; did you mean 'hqq_int4'?"),
    ("quant.Group_Size=32", "quant.Group_Size: no such key; did you mean 'quant.group_size'?"),
    ("quant=nf4_dq", "no such quant; did you mean 'bnb_nf4"),
    ("quant.library=hqqq", "quant.library='hqqq': no such quantizer; did you mean 'hqq'?"),
    ("dataset.source=manifst", "dataset.source: no reader 'manifst'; did you mean 'manifest'?"),
    ("dataset.splits=[claen]", "demo has no split 'claen'; did you mean 'clean'?"),
    ("hydra/launcher=slrum", "hydra/launcher=slrum: no such hydra/launcher"),
    ("quant=", "quant=: no such quant; allowed: as_shipped, "),
    ("quant=null", "quant=null: cannot be composed: "),
    # names of keys
    ("quatn=none", "quatn: no such key; did you mean 'quant'?"),
    ("quant.grup_size=32", "quant.grup_size: no such key; did you mean 'quant.group_size'?"),
    ("dataset.limt=3", "dataset.limt: no such key; did you mean 'dataset.limit'?"),
    ("model.architecture.dmodel=3", "no such key; did you mean 'model.architecture.d_model'?"),
    ("batch_size=8", "batch_size: no such key; did you mean 'protocol.batch_size'?"),
    ("limit=3", "limit: no such key; did you mean 'dataset.limit'?"),
    ("threads=4", "threads: no such key; did you mean 'device.threads'?"),
    ("+quant.speed=9", "quant.speed: no such key"),
    ("++quant.bitz=3", "quant.bitz: no such key; did you mean 'quant.bits'?"),
    ("quant={a:1}", "quant is a group: choose one of its options, quant=NAME"),
    ("~quant", "quant: required, but not given"),
    ("quant.bitz=4 dataset.limt=3", "quant.bitz: no such key; did you mean 'quant.bits'? dataset.limt: no such key; "),
    ("++quant.bitz=4 ++sede=3", "no such key; did you mean 'quant.bits'? sede: no such key; did you mean 'seed'?"),
    # the same key twice
    (
        "quant=none quant=bnb_nf4",
        "quant: given 2 times, as none and bnb_nf4; keep one, or sweep: -m quant=none,bnb_nf4",
    ),
    ("dataset.limit=5 +dataset.limit=7", "dataset.limit: given 2 times, as 5 and 7; keep one, or sweep: -m dataset."),
    ("-m seed=1 quant=none ++seed=1", "seed: given 2 times, as 1 and 1; keep one"),
    ("tracking.uri=http://a:b@c tracking.uri=http://a:b@d", "tracking.uri: given 2 times; keep one"),
    ("--config-dir a --config-dir b", "--config-dir: given 2 times; keep one"),
    # paths that cannot be looked at
    (f"model.path={LONG}", f"'{LONG[:79]}… (302 characters): File name too long"),
    (f"dataset=manifest dataset.path={LONG}", f"'{LONG[:79]}… (302 characters): File name too long"),
    (f"dataset=librispeech_dir dataset.path={LONG}", f"'{LONG[:79]}… (302 characters): File name too long"),
    (
        f"dataset.noise.kind=recorded dataset.noise.path={LONG} dataset.noise.snr_db=3",
        f"'{LONG[:79]}… (302 characters): File name too long",
    ),
    # types and ranges
    ("protocol.batch_size=-1", "protocol.batch_size=-1: input should be greater than 0"),
    ("protocol.batch_size=many", "protocol.batch_size='many': input should be a valid integer"),
    ("protocol.batch_size=2.5", "protocol.batch_size=2.5: input should be a valid integer"),
    ("dataset.limit=0", "dataset.limit=0: input should be greater than 0"),
    ("dataset.splits=clean", "dataset.splits='clean': expected a list, e.g. dataset.splits=[clean]"),
    ("dataset.splits=[]", "dataset.splits=[]: give at least one, or null for all"),
    ("dataset.language=english", "dataset.language='english': expected a code of two or three letters"),
    ("dataset.noise.kind=white", "set both, e.g. dataset.noise.kind=white dataset.noise.snr_db=10"),
    ("dataset.noise.kind=brown dataset.noise.snr_db=inf", "'brown': input should be 'white', 'pink', "),
    ("quant.bits=four", "quant.bits='four': input should be a valid number"),  # though none has no bits
    ("quant.group_size=-64", "quant.group_size=-64: input should be greater than 0"),
    ("quant.target=enc", "quant.target='enc': input should be 'all', 'encoder' or 'decoder'"),
    ("quant=hqq_int4 quant.skip=['*.kproj']", "quant.skip='*.kproj' matches no Linear module; nearest: "),
    ("quant=hqq_int4 quant.skip=['*']", "quant.target, quant.skip and quant.head leave nothing to quantize"),
    ("quant.skip=*.k_proj", "quant.skip='*.k_proj': expected a list, e.g. quant.skip=[*.k_proj]"),
    ("seed=true", "seed=True: input should be a valid integer"),
    ("seed=-1", "seed=-1: input should be greater than or equal to 0"),
    ("resume=no", "resume='no': expected true or false"),
    ("timeout_s=0", "timeout_s=0: input should be greater than 0"),
    ("timeout_s=inf", "timeout_s=inf: input should be less than or equal to "),
    ("device.threads=-1", "device.threads=-1: input should be greater than 0"),
    ("stats.resamples=1000000000", "stats.resamples=1000000000: input should be less than or equal to 1000000"),
    ("model.architecture.attention_heads=7", "d_model=192 is not a multiple of attention_heads=7"),
    ("output_dir=", "output_dir='': it is empty"),
    (f"model.name={'x' * 4000}", "xxxx… (4,002 characters): string should have at most 200 characters"),
    # numbers without reason
    ("seed=4294967296", "seed=4294967296: input should be less than or equal to 4294967295"),
    ("seed=9223372036854775808", "seed=9223372036854775808: input should be less"),
    (f"seed={2**64}", "input should be less than or equal to 4294967295"),
    ("dataset.noise.seed=18446744073709551616", "dataset.noise.seed=18446744073709551616: input should be less"),
    ("device.threads=1e20", "device.threads=1e+20: input should be a valid integer"),
    ("device.threads=100000", "device.threads=100000: input should be less than or equal to 4096"),
    ("device.threads=4096 device=cpu", "device.threads=4096: this process may use "),
    ("dataset.noise.kind=white dataset.noise.snr_db=1e308", "dataset.noise.snr_db=1e+308: a number of dB from -100"),
    ("dataset.noise.kind=white dataset.noise.snr_db=-1e308", "dataset.noise.snr_db=-1e+308: a number of dB from"),
    ("dataset.noise.kind=white dataset.noise.snr_db=nan", "dataset.noise.snr_db=nan: a number of dB from"),
    ("model.architecture.vocab_size=1", "model.architecture.vocab_size=1: input should be greater than or equal to 16"),
    ("model.architecture.d_model=1000000000", "model.architecture.d_model=1000000000: input should be less"),
    ("protocol.batch_size=1000000000", "protocol.batch_size=1000000000: input should be less"),
    ("protocol.max_new_tokens=1000000000000", "input should be less than or equal to 1000000"),
    ("protocol.num_beams=100000", "protocol.num_beams=100000: input should be less than or equal to 128"),
    ("protocol.warmup_batches=10000000", "protocol.warmup_batches=10000000: input should be less"),
    ("dataset.limit=100000000000000000000", "dataset.limit=100000000000000000000: input should be less"),
    ("dataset.chunk_overlap_s=inf", "dataset.chunk_overlap_s=inf: input should be less than or equal to 3600"),
    ("quant.bits=inf", "quant.bits=inf: input should be less than or equal to 32"),
    ("hydra/launcher=slurm hydra.launcher.mem_gb=inf", "hydra.launcher.mem_gb=inf: input should be less"),
    ("hydra/launcher=slurm hydra.launcher.timeout_min=1000000000", "timeout_min=1000000000: input should be less"),
    # paths that are none, and what a shipped thing does not take
    ("model.path=", "model.path='': it is empty"),
    ("dataset.path=", "dataset.path='': it is empty"),
    ("export.dir=", "export.dir='': it is empty"),
    ("tracking.experiment=", "tracking.experiment='': it is empty"),
    ('model.path="~nobody-of-this-name/x"', "no user of this machine has this home folder"),
    ("export.dir=/dev/null/x", "export.dir=/dev/null/x cannot be made: Not a directory; name a folder"),
    ("dataset.path=other", "dataset.path='other': demo ships with quantlab and has no path; dataset=manifest"),
    (
        "model.repo=openai/whisper-base",
        "model.repo='openai/whisper-base': nano ships with quantlab; for the hub: model=base",
    ),
    ("model.path=openai/whisper-base", "model=base model.repo=openai/whisper-base model.revision=null"),
    ("dataset.language=zz", "dataset.language=zz: model nano has no such language; it knows en"),
    # what is missing, or is not there
    ("dataset=manifest", "needs dataset.path=<the manifest>"),
    ("dataset=manifest dataset.path=no.jsonl", "dataset.path=no.jsonl: No such file or directory; expected one JSON"),
    ("dataset=librispeech_dir dataset.path=no", "dataset.path=no is not a folder; expected one that holds"),
    ("model.path=no", "model.path=no does not exist; expected a folder that `save_pretrained` or CTranslate2 wrote"),
    ("tracking=server", "needs tracking.uri=http://HOST:PORT"),
    ("tracking=server tracking.uri=localhost:5000", "tracking.uri: expected http://HOST:PORT; "),
    ("seed=${nothing}", "seed: Interpolation key 'nothing' not found"),
    ("seed=${oc.env:NOT_SET}", "seed: KeyError raised while resolving interpolation: \"Environment variable 'NOT_SET'"),
    ("--config-dir nowhere", "nowhere' not found"),
    # sweeps
    ("quant=none,torch_int8", "to sweep over the values add -m"),
    ("-m quant=glob(hqx*)", "the sweep has no cell: a glob or range is empty, in -m quant=glob(hqx*)"),
    ("-m seed=range(0)", "the sweep has no cell"),
    ("-m seed=rnge(3)", "seed=rnge(3): the value cannot be parsed (Unknown function 'rnge')"),
    ("-m quant=none, bnb_nf4", "quant=none, bnb_nf4: a space beside a comma; write -m quant=none,bnb_nf4"),
    ("seed=1 ,2 , 3", "seed=1 ,2 , 3: a space beside a comma; write -m seed=1,2,3"),
    ("-m seed=1,,2", "seed=1,,2: the value cannot be parsed (a value is missing beside a comma)"),
    ("quant=none,", "quant=none,: the value cannot be parsed (a value is missing beside a comma)"),
    (
        "-m quant=[none,bnb_nf4],hqq_int4",
        "not a list in brackets; to sweep over them, write -m quant=none,bnb_nf4,hqq_",
    ),
    ("experiment=[demo,lowbit]", "experiment takes one option, not a list in brackets; to sweep over them, write -m "),
    ("quant=[none]", "quant takes one option, not a list in brackets; write quant=none"),
    ("quant=[]", "quant takes one option, not a list in brackets"),
    ("hydra/launcher=[slurm]", "hydra/launcher takes one option, not a list in brackets; write hydra/launcher=slurm"),
    (
        "only=*-nothing-*",
        "only=*-nothing-*: keeps no cell of the grid (1 cell); expected a glob that matches names like nano-none-",
    ),
    # what is no key=value
    ("quant", "quant: expected key=value, e.g. quant=hqq_int4"),
    ("report", "report: the grid takes only key=value; to run this command: quantlab report"),
    ("--quant=none", "--quant=none: no such option; keys have no dashes, e.g. quant=hqq_int4"),
    ("--multirunn", "--multirunn: no such option"),
    ("--root runs", "--root: the grid's folder is output_dir=DIR"),
    ("--cfg jobb", "invalid choice: 'jobb'"),
    ("protocol.batch_size=[1", "protocol.batch_size=[1: the value cannot be parsed"),
    ("quant='none", "quant='none: the value cannot be parsed"),
    ("=none", "'': no such key"),
]


@pytest.mark.parametrize(("line", "says"), GRID, ids=[line[:60] for line, _ in GRID])
def test_the_grid(line, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Grid, "run", runs)
    assert main(line.split(" ")) == MISUSED
    _assert_one_line(capsys.readouterr(), says)
    assert list(tmp_path.iterdir()) == [], "a mistake leaves nothing behind"


def runs(*_):
    """In place of cells, which would take their time to fail the test."""
    raise AssertionError("something is run")


def _assert_one_line(printed, says):
    assert says in printed.err
    assert printed.err.startswith("quantlab: ")
    assert len(printed.err.strip().splitlines()) == 1
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("key", sorted({*groups(), *KEYS}))
def test_a_list_for_a_key_that_takes_one_value(key):
    """Hydra merges a list of options: the last one alone would be measured."""
    one, other = {"text": ("a", "b")}.get(kind_of(key), (groups().get(key) or ("1", "2"))[:2])
    if kind_of(key) == "list" or key.startswith("dataset.hub_splits."):
        return  # takes lists, or holds free names
    with pytest.raises(ConfigError, match=rf"\] ?: {key} takes .*; to sweep over them, write -m {key}={one},{other}"):
        composed([f"{key}=[{one},{other}]"])


def test_no_words_of_the_parser_generator():
    for wrong in (",", "a,", "(a)", "[a", "{a", "a]", "'a", ")", "a b'", "[a,]", "{a:}", "$", "${a"):
        with pytest.raises(ConfigError) as refused:
            composed(["-m", f"quant={wrong}"])
        assert not re.search("input|<EOF>|BRACKET|alternative|expecting|token", str(refused.value)), wrong


HEAD = "# @package _global_\n"
YAML = [
    (HEAD + "quant:\n  bitz: 4\n", "quant.bitz: no such key; did you mean 'quant.bits'?"),
    (HEAD + "sede: 3\n", "sede: no such key; did you mean 'seed'?"),
    (HEAD + "defaults:\n  - override /quant: hqq_int5\n", "quant=hqq_int5: no such quant; did you mean 'hqq_int"),
    (HEAD + "defaults:\n  - override /quatn: none\n", "quatn: no such key; did you mean 'quant'?"),
    (
        HEAD + "defaults:\n  - override /quant: [none, hqq_int4]\n",
        "quant: a list of options in the `defaults` of",
    ),
    (HEAD + "protocol:\n  batch_size: many\n", "protocol.batch_size='many': input should be a valid integer"),
    (HEAD + "protocol:\n  batch_size: -1\n", "protocol.batch_size=-1: input should be greater than 0"),
    (HEAD + "quant: hqq_int4\n", "quant='hqq_int4': expected keys with values, {KEY: VALUE}"),
    (HEAD + "seed: [1\n", "mine.yaml:3: expected ',' or ']'"),
    (HEAD + "quant:\n\tbits: 4\n", "mine.yaml:3: found character '\\t' that cannot start any token"),
    (HEAD + "seed: 1\nseed: 2\n", "mine.yaml:3: found duplicate key seed"),
    (HEAD + "seed: !!python/object/apply:os.system ['touch ran']\n", "mine.yaml:2: could not determine a constructor"),
    ("seed: 3\n", "experiment: the first line of its YAML has to be: # @package _global_"),
    ("", "experiment: the first line of its YAML has to be: # @package _global_"),
    ("\x00\x01", "unacceptable character"),
]


@pytest.mark.parametrize(("text", "says"), YAML)
def test_a_study_of_ones_own(text, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(text)
    assert main(["--config-dir", "conf", "experiment=mine"]) == MISUSED
    _assert_one_line(capsys.readouterr(), says)
    assert [path.name for path in tmp_path.iterdir()] == ["conf"], "a mistake leaves nothing behind"


BESIDE = [
    (report.main, "--fromat json", "--fromat: no such option; did you mean '--format'?"),
    (report.main, "--format jsno", "no format 'jsno'; did you mean 'json'?"),
    (report.main, "--format html --audio nothere", "--audio nothere: no such folder"),
    (report.main, "--audio nothere", "--audio: only the page plays audio, add --format html"),
    (recommend.main, "--max-wer 0.5", "--max-wer: no such option; did you mean '--max-wer-increase'?"),
    (report.main, "--format", "'--format' requires an argument"),
    (report.main, "--margin -1", "--margin: -1: a number above 0"),
    (report.main, "mlruns", "unexpected extra argument (mlruns)"),
    (recommend.main, "--max-size-mb -3", "--max-size-mb: -3: a number above 0"),
    (recommend.main, "--max-size-mb=ten", "'ten' is not a number"),
    (recommend.main, "--max-wer-increase nan", "--max-wer-increase: nan: a number, 0 or more"),
    (recommend.main, "--max-sise-mb 3", "--max-sise-mb: no such option; did you mean '--max-size-mb'?"),
    (recommend.main, "--format csv", "no format 'csv'; allowed: json, table"),
    (rescore.main, "", "nothing to change: give --normaliser, --scorer, --keywords, or --output alone"),
    (rescore.main, "--normalizer basic", "--normalizer: no such option; did you mean '--normaliser'?"),
    (rescore.main, "--normaliser whispr", "no normaliser 'whispr'; did you mean 'whisper'?"),
    (verify.main, "--rot mlruns", "--rot: no such option; did you mean '--root'?"),
    (verify.main, "0123456789abcdef", "no record of cell '0123456789abcdef' in mlruns"),
    (status.main, "--rot x", "--rot: no such option; did you mean '--root'?"),
    (sync.main, "--tracking-uri http://here", "--tracking-uri: no such option; did you mean '--uri'?"),
    (sync.main, "--uri here", "--uri: expected http://HOST:PORT; "),
    (sbatch.main, "quant=nnoe", "quant=nnoe: no such quant; did you mean 'none'?"),
    (sbatch.main, "hydra.launcher.partitoin=gpu", "did you mean 'hydra.launcher.partition'?"),
    (sbatch.main, "hydra/launcher=basic", "a script is for SLURM; allowed: slurm, slurm_cpu"),
    (sbatch.main, "--cfg job", "--cfg: not available in sbatch; use: quantlab --cfg job"),
    (work.main, "", "--batch: required, but not given"),
    (export.main, "", "--dir: required, but not given"),
    (export.main, "--to x", "--to: no such option; did you mean '--root'?"),
    (fetch.main, "modle=nano", "modle: no such key; did you mean 'model'?"),
    (fetch.main, "--rot=x model=nano", "--rot: no such option; did you mean '--root'?"),
    (named, "reprot", "no command 'reprot'; did you mean 'report'?"),
    (named, "hqq_int4", "no command 'hqq_int4'; did you mean quant=hqq_int4?"),
    (named, "report --fromat json", "--fromat: no such option; did you mean '--format'?"),
    (named, "--fromat", "--fromat: no such option; keys have no dashes, e.g. quant=hqq_int4"),
    (named, "quant=nnoe", "quant=nnoe: no such quant; did you mean 'none'?"),
    (named, "run quant=nnoe", "quant=nnoe: no such quant; did you mean 'none'?"),
    (named, "-m quant=none,nnoe --dry-run", "quant=nnoe: no such quant; did you mean 'none'?"),
    (named, "quant", "quant: expected key=value, e.g. quant=hqq_int4"),
    (named, "~quant", "quant: required, but not given"),
    (named, "quant=none report", "report: the grid takes only key=value; to run this command: quantlab report"),
    (merge.main, "", "DIR...: required, but not given"),
    (merge.main, "a b", "--into: required, but not given"),
    (merge.main, "a b --int c", "--int: no such option; did you mean '--into'?"),
    (merge.main, ". --into .", "--into . is one of the folders to copy, .: name another target"),
    (merge.main, "a b --into c", "no records in a, which does not exist"),
    (report.main, "--root a --root b", "no records in a, which does not exist"),
]


@pytest.mark.parametrize(("run", "line", "says"), BESIDE, ids=[line for _, line, _ in BESIDE])
def test_the_commands_beside_it(run, line, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(line.split()) == MISUSED
    _assert_one_line(capsys.readouterr(), says)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_records_is_no_misuse(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run, more in ((report.main, []), (verify.main, []), (rescore.main, ["--normaliser", "none"])):
        assert run(["--root", "nowhere", *more]) == 1
        assert "no records in nowhere: no such file or folder; make some" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a_file").touch()
    assert status.main(["--root", "a_file"]) == 1
    assert "no records in a_file, which is not a folder; make some" in capsys.readouterr().err
