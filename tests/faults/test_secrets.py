"""Secrets in every place where a setting can hold one: nothing that is written or printed has them.

And the other way round: a word that is somebody's password stays a word where it identifies a cell.
"""

import os
import pickle
from urllib.parse import quote

import pytest
import yaml

from helpers import synthetic
from quantlab.cli import sync
from quantlab.cli.run import main
from quantlab.cli.verify import main as verify
from quantlab.config.compose import compose
from quantlab.config.schema import RunConfig, TrackingConfig
from quantlab.grid.slurm import batch as batches
from quantlab.records import storage
from quantlab.records.schema import CellResult
from quantlab.records.shape import shape_of
from quantlab.tracking import describe
from quantlab.util.address import VARIABLE, Address, opened
from quantlab.util.redact import redact, why_secret
from quantlab.util.resources import shared_dir

AWKWARD = (
    "pa/ss@w0rd-1",
    "p%40ss-w0rd",
    "tok?en=1&b#c",
    "pässwörd-ключ",
    "pa'ss\"w0rd",
    "a b c w0rd",
    "".join(f"{n:x}é" for n in range(150)),
)
PLACES = (  # of a command line; {} is the secret
    "tracking=server tracking.uri=http://bob:{}@host.invalid:5000/",
    "tracking=server tracking.uri=bob:{}@host.invalid",
    "tracking=server tracking.uri=http://host.invalid/?token={} seed=x",
    "dataset=manifest dataset.path=https://bob:{}@host/lines.jsonl",
    "model.path=https://bob:{}@host/folder",
    "export.dir=https://host/?token={}",
    "model.name=${{oc.env:HF_TOKEN}}",
    "model=${{oc.env:HF_TOKEN}}",
    "model.name={}",
    "model={}",
    "quant=none,{}",
    "seed={}",
    "{}=1",
    "{}",
    "hydra/launcher=slurm hydra.launcher.setup=[export\\ HTTPS_PROXY=http://bob:{}@proxy:3128]",
    "hydra/launcher=slurm hydra.launcher.setup=[export\\ HF_TOKEN={}]",
    "hydra/launcher=slurm +hydra.launcher.additional_parameters.export=HF_TOKEN={}",
    "hydra/launcher=slurm hydra.launcher.setup=[echo\\ ${{oc.env:HF_TOKEN}}]",
)


def forms(secret):
    """How a secret may stand in a text."""
    return {secret, quote(secret, safe=""), repr(secret)[1:-1]}


def assert_hidden(secret, written, where):
    found = [form[:30] for form in forms(secret) if form[:30] in written]
    assert not found, f"{where}: {written}"


@pytest.mark.parametrize("secret", AWKWARD, ids=range(len(AWKWARD)))
def test_no_refusal_repeats_a_secret(secret, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", secret)
    for place in PLACES:
        assert main([*filled(place, secret), "timeout_s=-1"]) == 2, place
        printed = capsys.readouterr()
        assert_hidden(secret, printed.err + printed.out, place)
        assert "Traceback" not in printed.err
    assert sync.main(["--uri", f"bob:{secret}@host"]) == 2
    assert_hidden(secret, capsys.readouterr().err, "sync")
    assert list(tmp_path.iterdir()) == []


def filled(place, secret):
    """The words of a command line."""
    words = place.format("\0").replace("\\ ", "\1").split(" ")
    return [word.replace("\1", " ").replace("\0", secret) for word in words]


def test_no_key_of_the_configuration_is_taken_for_a_secrets_name():
    """`protocol.max_new_tokens=0` is refused by its value."""
    for part, kind in shape_of(RunConfig).items():
        for key in kind.parts or [""]:
            said = f"{part}.{key}=123456789: a number".replace(".=", "=")
            assert redact(said) == said
            assert why_secret(said) is None


def test_what_hydra_shows_and_keeps_has_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    uri = "http://bob:p%40ss-w0rd@host.invalid:5000/t/token-of-a-path?token=tok-en-1"
    given = ["tracking=server", f"tracking.uri='{uri}'"]
    assert main([*given, "--cfg", "job"]) == 0
    kept = ["hydra.output_subdir=.hydra", "hydra.run.dir=run", "hydra.sweep.dir=sweep", "seed=-1"]
    assert main([*given, *kept]) == main(["-m", *given, *kept]) == 2
    printed = capsys.readouterr()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == []
    assert "uri: http://***@host.invalid:5000/***?***\n" in printed.out
    for secret in ("p%40ss-w0rd", "p@ss-w0rd", "tok-en-1", "token-of-a-path"):
        assert_hidden(secret, printed.out + printed.err, "Hydra's output")


ADDRESSES = [
    ("http://bob:p%40ss@host:80/", "http://***@host:80/"),
    ("https://host/t/token/mlflow", "https://host/***"),
    ("https://host/?token=tok?en=1&b", "https://host/?***"),
    ("https://host#token=x", "https://host?***"),
    ("postgresql+psycopg://u:p'ä\"@h1:5432/db", "postgresql+psycopg://***@h1:5432/***"),
    ("https://hf_token_as_a_user@host", "https://***@host"),
    ("http://[::1]:5000", "http://[::1]:5000"),
    ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
    ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
]


@pytest.mark.parametrize(("whole", "shown"), ADDRESSES)
def test_an_address_shows_its_host_alone(whole, shown):
    tracking = TrackingConfig(name="server", uri=whole)
    assert opened(tracking.uri) == whole
    dumped = tracking.model_dump(mode="json")["uri"]
    copies = [str(tracking.uri), f"{tracking.uri}", dumped, yaml.safe_load(yaml.safe_dump(dumped))]
    copies += [pickle.loads(pickle.dumps(tracking)).uri, TrackingConfig(name="server", uri=dumped).uri]
    assert copies == [shown] * len(copies)
    assert whole == shown or whole not in repr(tracking)


@pytest.mark.parametrize("text", ["http://bob:pa/ss@host/", "http://bob:a?b@host", "http://host:pass", "host", "x://"])
def test_what_cannot_be_told_apart_is_no_address(text):
    with pytest.raises(ValueError, match="expected http://HOST:PORT") as error:
        Address(text)
    assert text not in str(error.value)


def test_a_job_gets_the_address_from_its_environment_and_from_no_file(tmp_path, monkeypatch):
    whole = "http://bob:p%40ss-w0rd@host/t/token-of-a-path"
    [config] = compose(["tracking=server", f"tracking.uri={whole}", "dataset.limit=1"])
    cell = batches.Planned(
        id="a1", label="x", config=config.model_dump(mode="json"), fingerprints={}, versions={}, before=None
    )
    from quantlab.config.launcher import LauncherConfig

    batch = batches.new("sweep", LauncherConfig(), [cell], [["a1"]])
    batches.write(tmp_path, batch)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
            assert_hidden("p%40ss-w0rd", path.read_text(), path)
            assert_hidden("token-of-a-path", path.read_text(), path)
    [found] = batches.read(tmp_path, batch.id).planned(0)
    uri = found.run_config().tracking.uri
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ValueError, match=f"set {VARIABLE} to all of it"):
        opened(uri)
    monkeypatch.setenv(VARIABLE, whole)
    assert opened(uri) == whole
    monkeypatch.setenv(VARIABLE, "http://another/host")
    with pytest.raises(ValueError, match="in no file"):
        opened(uri)


@pytest.fixture
def passwords_that_are_words(monkeypatch):
    """Each word of the shipped configuration is the value of a variable that is called like a secret."""
    words = {path.stem for path in shared_dir("conf").rglob("*.yaml")}
    words |= {"weight-only", "per-channel", "pretrained", "openai/whisper-small", "eager", "float32", "quantlab"}
    for number, word in enumerate(sorted(words)):
        monkeypatch.setenv(f"SERVICE{number}_PASSWORD", word)
    monkeypatch.setenv("DB_PASSWORD", "torch_int8")
    monkeypatch.setenv("TOKENIZERS_CACHE", "/a/checkpoint/of/ours")
    return words


def _written(root):
    good = synthetic.result("torch_int8", "a1", model__path="/a/checkpoint/of/ours", dataset__name="librispeech_dir")
    bad = synthetic.bad_result("failed", "quant=torch_int8: no such layer below /a/checkpoint/of/ours", cell_id="b2")
    for item in (good, bad):
        storage.write(root, item if isinstance(item, CellResult) else CellResult(record=item))
    records = list(storage.read_all(root))
    return [(record, describe.params(record), describe.tags(record)) for record in map(storage.public, records)]


def test_a_password_that_is_a_word_changes_no_record(tmp_path, request):
    before = _written(tmp_path / "before")
    words = request.getfixturevalue("passwords_that_are_words")
    assert len(words) > 60
    assert _written(tmp_path / "after") == before
    assert (
        redact("DB_PASSWORD=torch_int8 {'SERVICE1_PASSWORD': 'bnb_nf4'}")
        == "DB_PASSWORD=*** {'SERVICE1_PASSWORD': ***}"
    )
    assert redact("quant=torch_int8: see /a/checkpoint/of/ours") == "quant=torch_int8: see /a/checkpoint/of/ours"
    assert [config.quant.name for config in compose(["-m", "quant=torch_int8,bnb_nf4"])] == ["torch_int8", "bnb_nf4"]
    assert verify(["--root", str(tmp_path / "after")]) == verify(["--root", str(tmp_path / "before")])


LEAK = """
import os, sys
class Leak:
    DISTRIBUTIONS = ()
    __name__ = "quantlab_leak"
    def why_unsupported(self, quant, device): return None
    def is_quantized(self, module): return False
    def kernel(self, module): return None
    def setup(self, model, *_):
        print(sys.argv, dict(os.environ), flush=True)
        raise ValueError(f"{sys.argv} {' '.join(os.environ[name] for name in os.environ if name.startswith('LEAK'))}")
leak = Leak()
"""


def test_a_grid_writes_and_prints_none(quantlab, monkeypatch, tmp_path):
    """The whole command, with a library that prints its environment and arguments, and fails with them."""
    site = tmp_path / "site"
    info = site / "quantlab_leak-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "quantlab_leak.py").write_text(LEAK)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quantlab-leak\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[quantlab.quantizers]\nleak = quantlab_leak:leak\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("NO_PROXY", "*")
    for number, secret in enumerate(AWKWARD[:-1]):
        monkeypatch.setenv(f"LEAK{number}_TOKEN", secret)
        monkeypatch.setenv(f"LEAK{number}_URL", f"https://me:{secret}2@host/corpus")
    monkeypatch.setenv("LEAK_HTTP_PROXY", "me:pr0xy/p@ss@proxy:3128")
    uri = "http://bob:uri%40s3cret@127.0.0.1:9/t/token-of-a-path?token=tok-en-1"
    grid = ("-m", "quant=torch_int8", "quant.library=torch,leak", "device=cpu", "dataset.limit=2", "protocol=quick")
    served = quantlab(*grid, "tracking=server", f"tracking.uri='{uri}'")
    assert served.returncode == 1, served.stderr
    local = quantlab("--root", "mlruns", module="quantlab.sync")
    assert local.returncode == 0, local.stderr
    written = {"printed": (served.stdout + served.stderr + local.stdout + local.stderr).encode()}
    written |= {str(path): path.read_bytes() for path in tmp_path.joinpath("mlruns").rglob("*") if path.is_file()}
    assert any("mlflow.db" in name for name in written)
    assert b"127.0.0.1:9" in written["printed"], "where the server is may be said"
    secrets = [*AWKWARD[:-1], "pr0xy/p@ss", "uri%40s3cret", "uri@s3cret", "token-of-a-path", "tok-en-1"]
    for name, content in written.items():
        for secret in secrets:
            assert [form for form in forms(secret) if form.encode() in content] == [], name
