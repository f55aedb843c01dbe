"""A file that is there already is measured as it is: the same text and the same bytes as where quantlab writes it."""

import json
import re
import shlex
import shutil

import pytest
import torch

from quantlab import models
from quantlab.analysis.pairs import find_baselines
from quantlab.config.compose import compose
from quantlab.config.overrides import command
from quantlab.engines import decoding, whispercpp
from quantlab.export.from_record import export_from_record
from quantlab.grid.plan import plan
from quantlab.measurement.cell import run_cell
from quantlab.models.companions import write_companions
from quantlab.models.formats.ggml.read import read
from quantlab.models.formats.ggml.vocabulary import of_file
from quantlab.quantization.backends import as_shipped, ct2, ggml
from quantlab.records import storage
from quantlab.records.cell_id import hashed
from quantlab.records.labels import names, of_record, short
from quantlab.report import table
from quantlab.report.summaries import summaries, summary
from quantlab.tracking import describe
from quantlab.util.errors import CheckpointError, ConfigError

CPU = torch.device("cpu")
FIXED = ("device=cpu", "device.threads=1", "dataset.limit=1", "tracking=off", "protocol.warmup_batches=0")
FORMATS = {"ggml_q5_0": "q5_0", "ggml_f16": "f16", "ct2_int8": "int8_float32"}
NANO = models.shipped("nano")


def composed(*options):
    [config] = compose([*FIXED, *options])
    return config


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The shipped model as other people would hand it on, by the quantizer that wrote it."""
    root, made = tmp_path_factory.mktemp("files"), {}
    for name in FORMATS:
        config = composed(f"quant={name}")
        checkpoint = models.load(config.model, 0)
        how, made[name] = decoding(checkpoint.model, config), root / f"nano-{name}"
        made[name].mkdir()
        write_companions(checkpoint, made[name], "en")
        engine = ggml if name.startswith("ggml") else ct2
        engine.convert(checkpoint.model, config.quant, (), CPU, how, 1, made[name])
        if engine is ggml:
            made[name] = shutil.move(made[name] / ggml.FILE, made[name].with_suffix(".bin"))
    return made


@pytest.fixture(scope="module")
def cell(files):
    """Runs `quant=as_shipped` on a file, or what `other` says; each cell once."""
    known = {}

    def run(name, *options, other=None):
        wanted = (f"quant={other}",) if other else ("quant=as_shipped", f"model.path={files[name]}")
        if (wanted, options) not in known:
            known[wanted, options] = run_cell(composed(*wanted, *options))
        return known[wanted, options]

    return run


def texts(result):
    return [item.hypothesis for item in result.utterances]


@pytest.mark.parametrize("name", FORMATS)
def test_it_hears_and_holds_what_the_quantizer_s_own_file_does(name, cell):
    shipped, own = cell(name), cell(None, other=name)
    assert texts(shipped) == texts(own)
    found, expected = shipped.record.receipt, own.record.receipt
    assert found.verified
    assert shipped.record.setting("quant.format") == FORMATS[name]
    assert (found.modules_total, found.modules_quantized) == (expected.modules_total, expected.modules_quantized)
    filled_up = {"proj_out"} if name.startswith("ggml") else set()  # rows of a vocabulary that nano has not
    for one, other in zip(found.modules, expected.modules, strict=True):
        assert one.dtypes == other.dtypes
        assert one.class_after == other.class_after
        if one.name not in filled_up:
            assert (one.bytes_before, one.bytes_after) == (other.bytes_before, other.bytes_after)
    assert found.size_bytes == expected.size_bytes or filled_up
    told = {key: value for key, value in own.record.config["quant"].items() if key not in ("name", "library", "format")}
    assert {key: shipped.record.config["quant"][key] for key in told} == told


def test_the_size_is_the_file_s(files, cell):
    """But for names, words and mel filters."""
    size_bytes = cell("ggml_q5_0").record.receipt.size_bytes
    assert 0 < files["ggml_q5_0"].stat().st_size - size_bytes < 1_000_000
    receipt = cell("ggml_q5_0").record.receipt
    assert sum(receipt.bytes_by_dtype.values()) == size_bytes
    assert set(receipt.bytes_by_dtype) == {"q5_0", "f16", "f32"}


def test_with_a_baseline_it_is_compared_and_without_there_is_no_verdict(cell, tmp_path):
    lone, baseline = cell("ct2_int8"), cell(None, other="none")
    paired = cell("ct2_int8", f"baseline.path={NANO}")
    assert set(lone.record.fingerprints) == {"checkpoint", "corpus"}
    assert paired.record.fingerprints["baseline"] == baseline.record.fingerprints["checkpoint"]
    records = [item.record for item in (lone, paired, baseline)]
    found = find_baselines(records)
    assert (found[records[1].cell_id], found.get(records[0].cell_id)) == (records[2].cell_id, None)
    for item in (lone, paired, baseline):
        storage.write(tmp_path, item)
    by_id = {row.cell_id: row for row in summaries(tmp_path)}
    assert by_id[records[0].cell_id].verdict is None
    assert "baseline.path=FOLDER" in by_id[records[0].cell_id].no_baseline
    assert by_id[records[1].cell_id].verdict == "underpowered"
    assert by_id[records[1].cell_id].no_baseline is None
    [told] = [line for line in table.text(list(by_id.values())).splitlines() if line.startswith("no verdict: ")]
    assert records[0].cell_id[:6] in told or "nano-ct2_int8" in told


def test_the_baseline_takes_turns_with_it(cell):
    result = cell("ct2_int8", f"baseline.path={NANO}", "protocol.interleave=true", "protocol.budget_s=1")
    assert {item.of for item in result.batches} == {"cell", "baseline"}
    assert result.record.speed is not None
    assert result.record.fixed_work is not None


def test_one_sweep_has_the_file_and_its_baseline(files):
    path = f"model.path={files['ct2_int8']}"
    baseline, shipped = plan(compose(["-m", *FIXED, "quant=none,as_shipped", path, f"baseline.path={NANO}"]))
    assert baseline.config.model.path == str(NANO)
    assert baseline.config.baseline.path is None
    [alone] = plan(compose([*FIXED, "quant=none", f"model.path={NANO}"]))
    assert baseline.id == alone.id
    assert shipped.fingerprints["baseline"] == alone.fingerprints["checkpoint"]


def test_files_are_told_apart_by_their_formats(cell):
    records = [cell(name).record for name in FORMATS]
    same = [record.model_copy(update={"config": record.config | {"model": records[0].config["model"]}})
            for record in records]  # fmt: skip
    marked = [item.model_copy(update={"fingerprints": item.fingerprints | {"baseline": "b"}}) for item in same]
    assert [name.partition(" ")[2] for name in names([of_record(item) for item in marked]).values()] == [
        "(format=q5_0)",
        "(format=f16)",
        "(format=int8_float32)",
    ]
    shown = table.text([summary(item) for item in marked])
    assert all(format in shown for format in FORMATS.values())
    assert "granularity" not in shown
    assert all(f", {item.setting('quant.format')}" in describe.name(item) for item in marked)


def test_the_command_gives_the_same_cell_again(files):
    """The keys that are read off the file are not given back to it."""
    path, baseline = f"model.path={files['ct2_int8']}", f"baseline.path={NANO}"
    for given, quants in (((path, baseline), "quant=none,as_shipped"), ((path,), "quant=as_shipped")):
        [found] = plan(compose([*FIXED, "quant=as_shipped", *given]))
        told = shlex.split(command(found.config.model_dump(mode="json"), "mlruns"))
        assert quants in told
        assert not any(part.startswith("quant.") for part in told)
        assert told.pop(0) == "quantlab"
        assert found.id in {cell.id for cell in plan(compose(told))}


@pytest.mark.parametrize(
    ("mark", "shown"),
    [("sha256:0123456789", "012345"), ("openai/whisper-base@e37978b90ca9", "e37978"), ("0123456789", "012345")],
)
def test_a_fingerprint_is_shown_by_its_digits(mark, shown):
    assert short(mark) == shown


def test_the_ids_of_other_cells_stay(cell):
    """Records from before have no `baseline` in their configuration."""
    record = cell(None, other="none").record
    older = {key: value for key, value in record.config.items() if key != "baseline"}
    versions = record.environment["versions"]
    assert "baseline" in record.config
    assert hashed(older, record.fingerprints, versions) == record.cell_id


MISTAKES = {
    "random weights": (["model=tiny", "model.weights=random"], "not a file of another engine"),
    "the shipped model": ([], "model=nano is not a file"),
    "a folder of transformers": ([f"model.path={NANO}"], "not a file of another engine"),
    "another number of bits": (["PATH", "quant.bits=4"], "quant.bits=4.0: .* has 5"),
    "another scheme": (["PATH", "quant.scheme=static"], "quant.scheme=static: .* has dynamic"),
    "in turns with nothing": (["PATH", "protocol.interleave=true"], "set baseline.path=FOLDER"),
    "to be exported": (["PATH", "export.dir=there"], "set export.dir=null"),
    "a baseline that is not there": (["PATH", "baseline.path=/nowhere"], "baseline.path=/nowhere does not exist"),
    "a baseline that is quantized": (["PATH", "baseline.path=FILE"], "is already quantized"),
    "a baseline of something else": (["quant=hqq_int4", f"baseline.path={NANO}"], "which is its baseline"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_line(what, files, tmp_path):
    options, expected = MISTAKES[what]
    path = str(files["ggml_q5_0"])
    given = [{"PATH": f"model.path={path}"}.get(item, item.replace("FILE", path)) for item in options]
    quant = [] if any(item.startswith("quant=") for item in given) else ["quant=as_shipped"]
    with pytest.raises(ConfigError, match=expected) as raised:
        plan(compose([*FIXED, *quant, *given]))
    assert "\n" not in str(raised.value)


def test_a_baseline_of_other_sizes_is_none(files, tmp_path):
    shutil.copytree(NANO, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"encoder_layers": 2}))
    found = composed("quant=as_shipped", f"model.path={files['ct2_int8']}", f"baseline.path={tmp_path / 'other'}")
    with pytest.raises(ConfigError, match=r"encoder_layers=2.*it was not made from that"):
        plan([found])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ct2_int8", ["runtime=compile"], "has its own engine"),
        ("ct2_int8", ["runtime.dtype=float16"], "chooses its own types"),
    ],
)
def test_what_its_engine_has_not_is_unsupported(name, options, expected, files):
    [found] = plan(compose([*FIXED, "quant=as_shipped", f"model.path={files[name]}", *options]))
    assert found.refusal is not None
    assert re.search(expected, found.refusal.reason)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ct2_int8", ["quant.embedding=true"], "measured unchanged"),
        ("ct2_int8", ["quant.head=false"], "quant.head=true"),
        ("ct2_int8", ["quant.group_size=32"], "quant.group_size=32: .* has None, read from the file"),
        ("ggml_q5_0", ["quant.target=encoder"], "quant.target=all"),
        ("ggml_q5_0", ["quant.axis=1"], "quant.axis=1: as_shipped does not read it"),
    ],
)
def test_what_no_machine_could_do_with_the_file_is_a_mistake(name, options, expected, files):
    with pytest.raises(ConfigError, match=expected):
        plan(compose([*FIXED, "quant=as_shipped", f"model.path={files[name]}", *options]))


def test_a_device_is_its_engine_s(files):
    of_file, of_folder = (
        as_shipped.read_off(composed("quant=as_shipped", f"model.path={files[name]}")).quant
        for name in ("ggml_q5_0", "ct2_int8")
    )
    assert "wheels have no cuda" in as_shipped.why_unsupported(of_file, "cuda")
    assert "not on mps" in as_shipped.why_unsupported(of_folder, "mps")
    assert as_shipped.why_unsupported(of_folder, "cuda") is None


def test_a_folder_whose_tokens_contradict_each_other_is_refused(files, tmp_path):
    """The engine would stop at another token, or begin with one that does not come first."""
    for name, change, expected in (
        ("vocabulary.json", lambda found: found[1:] + found[:1], "another one of its vocabulary"),
        ("config.json", lambda found: found | {"suppress_ids_begin": [1]}, None),
    ):
        folder = tmp_path / name.partition(".")[0]
        shutil.copytree(files["ct2_int8"], folder)
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(found)))
        config = composed("quant=as_shipped", f"model.path={folder}")
        if expected:
            with pytest.raises(CheckpointError, match=expected):
                run_cell(config)
        else:  # honoured, as the engine reads it there
            assert run_cell(config).record.receipt.verified


def test_what_the_engine_has_not_loaded_is_not_verified(cell, files):
    config = composed("quant=as_shipped", f"model.path={files['ggml_q5_0']}")
    checkpoint = models.load(config.model, 0, quantized_too=True)
    how, contents = decoding(checkpoint.model, config), read(files["ggml_q5_0"])
    laid_out = of_file(contents.numbers["n_vocab"], contents.words, how)
    engine = whispercpp.load(files["ggml_q5_0"], laid_out, how, 1)
    assert list(engine.differences(contents.numbers)) == []
    other = contents.numbers | {"ftype": 2007}
    assert list(engine.differences(other)) == ["whisper.cpp has loaded ftype=8, the file says 7"]
    with pytest.raises(ConfigError, match="aborts without it"):
        of_file(contents.numbers["n_vocab"], [b"a"], how)


def test_a_record_of_it_is_not_exported(cell, tmp_path):
    with pytest.raises(ValueError, match="is a file already"):
        export_from_record(tmp_path, cell("ct2_int8").record, str(tmp_path))
