"""Fetched on the login node, measured where there is no network: a real hub on this machine, then none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.conftest import hub_clone  # noqa: F401  a fixture
from helpers.local_hub import Repository, serving
from quantlab import models
from quantlab.cli import fetch
from quantlab.config.options import option
from quantlab.records import storage

ROOT = Path(__file__).resolve().parent.parent
CELL = ("model=tiny", "quant=torch_int8", "dataset=librispeech")
QUICK = ("protocol=quick", "tracking=off", "device=cpu")


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # refuses


@pytest.fixture
def repositories(hub_clone):  # noqa: F811
    """The shipped recogniser and a small corpus, at the names and commits that conf/ asks for."""
    folders = {"model/tiny": models.ASSETS / "nano", "dataset/librispeech": hub_clone}
    found = {}
    for name, folder in folders.items():
        asked = option(*name.split("/"))
        found[asked["repo"]] = Repository(folder, asked["revision"])
    return found


@pytest.fixture
def hub(repositories, monkeypatch):
    with serving(repositories) as (url, fetched):
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield fetched


def lines(done):
    """What was said of each thing: kind, name, and the rest."""
    return [tuple(line.split(maxsplit=2)) for line in done.stdout.splitlines()]


def test_what_is_fetched_online_is_measured_offline(repositories, quantlab, shared_cache, monkeypatch):
    with serving(repositories) as (url, fetched):
        monkeypatch.setenv("HF_ENDPOINT", url)
        done = quantlab("--features", *CELL, module="quantlab.fetch")
        assert done.returncode == 0, done.stdout + done.stderr
        assert [(kind, name, rest.split()[0]) for kind, name, rest in lines(done)] == [
            ("checkpoint", "tiny", "fetched"),
            ("corpus", "librispeech", "fetched"),
            ("features", "tiny,", "librispeech"),
        ]
        assert "extracted" in done.stdout
        assert {"model.safetensors", "clean/test/0000.parquet", "other/test/0000.parquet"} <= set(fetched)
        assert "clean/train.100/0000.parquet" not in fetched

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the server is gone
    again = quantlab("--features", *CELL, module="quantlab.fetch")
    assert again.returncode == 0
    assert again.stdout.count("here already") == 3

    extracted = set((shared_cache / "features").iterdir())
    measured = quantlab(*CELL, *QUICK)
    assert measured.returncode == 0, measured.stdout + measured.stderr
    [record] = storage.read_all(quantlab.folder / "mlruns")
    assert (record.status, sorted(record.splits)) == ("ok", ["clean", "other"])
    assert set((shared_cache / "features").iterdir()) == extracted


def test_what_is_missing_offline_is_a_row_that_names_the_way_out(quantlab, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert quantlab(*CELL, *QUICK).returncode == 1
    assert quantlab("model=tiny", "dataset.limit=1", *QUICK).returncode == 1
    reasons = {record.setting("dataset.name"): record.reason for record in storage.read_all(quantlab.folder / "mlruns")}
    assert "quantlab fetch dataset=librispeech" in reasons["librispeech"]
    assert "quantlab fetch model=tiny" in reasons["demo"]
    assert all("is not on this machine and HF_HUB_OFFLINE forbids" in reason for reason in reasons.values())


def test_a_line_for_each_thing_and_each_once(hub, quantlab):
    done = quantlab("-m", "model=nano,tiny,base", "quant=none,torch_int8", "dataset=demo", "dataset.limit=1,2",
                    module="quantlab.fetch")  # fmt: skip
    assert done.returncode == 1
    nano, tiny, base, demo = lines(done)
    assert nano[:2] == ("checkpoint", "nano")
    assert nano[2].startswith("here already")
    assert nano[2].endswith(str(models.ASSETS / "nano"))
    size_mb = (models.ASSETS / "nano/model.safetensors").stat().st_size / 1e6
    assert size_mb <= float(nano[2].split()[2]) < size_mb + 1
    assert tiny[2].startswith("fetched")
    assert base[2].startswith("not available: the hub has no model openai/whisper-base")
    assert demo[:2] == ("corpus", "demo")
    assert demo[2].startswith("here already")
    assert "1 of 4 items missing" in done.stderr


def test_options_of_ones_own_are_taken_as_the_grid_takes_them(monkeypatch, tmp_path, capsys):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text(f"name: mine\nsource: hub\npath: {models.ASSETS / 'nano'}\n")
    monkeypatch.chdir(tmp_path)
    for line in ("--config-dir own model=mine", "-m model=nano,mine --config-dir=own dataset.limit=1,2"):
        assert fetch.main(line.split()) == 0
        assert [item.split()[:2] for item in capsys.readouterr().out.splitlines()][-2:] == [
            ["checkpoint", "mine"],
            ["corpus", "demo"],
        ]


def test_torch_is_left_alone():
    program = (
        "import sys; from quantlab.fetch import main; code = main(['model=nano', 'dataset=demo']); "
        "sys.exit(code or 'torch' in sys.modules or 'mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_files_that_are_not_there_are_missing(quantlab):
    manifest = quantlab.folder / "m.jsonl"
    shutil.copy(next((models.ASSETS / "demo").rglob("*.ogg")), quantlab.folder / "a.ogg")
    manifest.write_text('{"audio": "a.ogg", "text": "a"}\n{"audio": "b.ogg", "text": "b"}\n')
    done = quantlab("dataset=manifest", f"dataset.path={manifest}", module="quantlab.fetch")
    assert done.returncode == 1
    assert "b.ogg" in lines(done)[-1][-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model=smal",), "model=smal: no such model; did you mean 'small'?"),
        (("--cfg", "job"), "--cfg: no such option; did you mean '--config-dir'?"),
    ],
)
def test_misuse(quantlab, arguments, said):
    done = quantlab(*arguments, module="quantlab.fetch")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_has_examples(quantlab):
    done = quantlab("--help", module="quantlab.fetch")
    assert done.returncode == 0
    assert "quantlab fetch model=small,base,tiny dataset=librispeech" in done.stdout
