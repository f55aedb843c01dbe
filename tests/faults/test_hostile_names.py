"""Names and paths that lead elsewhere: nothing is written outside the root, and what cannot be a name is refused."""

import json
import shutil
import sqlite3

import pytest

from quantlab import models
from quantlab.cli.run import main
from quantlab.data.readers.manifest import ASSETS
from quantlab.records import storage
from quantlab.tracking import describe
from quantlab.util.console import MISUSED

SAID = "our drawer seemed very ordinary"
ODD = [
    "../../evil",
    "..",
    ".",
    "a\nb",
    "x" * 4000,
    "\ud800",
    "[/bold]",
    "\x1b[2J",
    "<script>alert(1)</script>",
    "{0} %s",
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with room around it for what escapes: home, temporary files and cache lie beside the root's parent."""
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for name, variable in {"home": "HOME", "scratch": "TMPDIR", "plots": "MPLCONFIGDIR"}.items():
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    return deep


def manifest(folder, rows):
    folder.mkdir(exist_ok=True)
    shutil.copyfile(ASSETS / "demo" / "clean" / "clean-0001.ogg", folder / "good.ogg")
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps({"audio": "good.ogg", "text": SAID} | row) + "\n" for row in rows))
    return path


def outside(tmp_path, root):
    """Everything around the root, but for what libraries keep in the folders that are theirs."""
    theirs = (root, tmp_path / "home", tmp_path / "plots", *tmp_path.glob("scratch/torchinductor_*"))
    return {path for path in tmp_path.rglob("*") if not any(path == own or own in path.parents for own in theirs)}


def test_nothing_is_written_outside_the_root(quantlab, place, tmp_path):
    """One grid in which everything that has a name has a hostile one; then every command over what it recorded."""
    rows = [{"id": name, "speaker": name, "text": f"{SAID} {name}"} for name in ODD]
    rows += [{"audio": name, "id": f"audio {index}"} for index, name in enumerate(ODD)]
    rows += [{"audio": str(tmp_path / "nowhere" / "evil.wav"), "id": "absolute"}]
    path = manifest(place / "speech", rows)
    checkpoint = shutil.copytree(models.ASSETS / "nano", place / "checkpoint")
    root = place / "root"
    before = outside(tmp_path, root)
    done = quantlab(
        "-m",
        "model.name=../../evil,'[/bold]'",
        f"model.path={checkpoint}",
        "quant.name=../../../evil",
        "dataset=manifest",
        "dataset.name=../../evil",
        f"dataset.path={path}",
        "tracking.experiment=../../evil",
        "protocol=quick",
        "protocol.name=/evil",
        "device=cpu",
        f"output_dir={root}",
    )
    assert done.returncode == 0, done.stderr
    assert "not in MLflow" not in done.stderr
    assert "../../evil-../../../evil-cpu" in done.stderr
    assert "[/bold]-../../../evil-cpu" in done.stderr

    assert {path.name for path in (root / "cells").glob("[!.]*")} == set(storage.recorded(root))
    assert len(storage.recorded(root)) == 2
    for cell_id in storage.recorded(root):
        heard = storage.read_utterances(root, cell_id)
        assert [item.id for item in heard] == [name.replace("\ud800", "?") for name in ODD]
        assert len(storage.read(root, cell_id).problems) == len(ODD) + 1
    with sqlite3.connect(root / "mlflow.db") as database:
        statuses = [status for (status,) in database.execute("SELECT status FROM runs")]
    assert statuses == ["FINISHED"] * 3  # and the summary

    for style in ("table", "json", "markdown", "latex", "csv", "html"):
        out = str(root / f"report.{style}")
        assert quantlab("--root", str(root), "--format", style, "--out", out, module="quantlab.report").returncode == 0
    assert "<script>alert(1)" not in (root / "report.html").read_text()
    assert quantlab("--root", str(root), module="quantlab.verify").returncode == 0
    rescored = ("--normaliser", "none", "--output", str(root / "rescored"))
    assert quantlab("--root", str(root), *rescored, module="quantlab.rescore").returncode == 0
    assert quantlab("--root", str(root), module="quantlab.recommend").returncode in (0, 1)
    assert outside(tmp_path, root) == before, "home, temporary files and all around the root are as they were"


SPLITS = ["../../evil", "/evil", "..", ".", " ", "a\nb", "x" * 4000, "\0", "\ud800", "a/b", "-m", "[/bold]", "a\tb"]


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_that_can_be_no_name_is_refused(split, place, tmp_path, capsys, monkeypatch):
    """It names figures, in tables and in MLflow."""
    monkeypatch.chdir(place)
    path = manifest(place / "speech", [{"split": split}])
    refused(capsys, place, ["dataset=manifest", f"dataset.path={path}"], f"{path}:1: split ")


@pytest.mark.parametrize("name", ["a\nb", "x" * 4000, "\ud800", "\x1b[2J", "\x00"])
@pytest.mark.parametrize("key", ["model.name", "dataset.name", "quant.name"])
def test_a_name_that_cannot_be_printed_is_refused(key, name, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    refused(capsys, place, [f"{key}='{name}'"], f"{key}=")


@pytest.mark.parametrize("audio", ["bad\0.wav", "", "\0"])
def test_an_audio_path_that_can_be_none_is_refused(audio, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    path = manifest(place / "speech", [{"id": "good"}, {"audio": audio, "id": "bad"}])
    refused(capsys, place, ["dataset=manifest", f"dataset.path={path}"], f"{path}:2: audio=")


@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", "", "nano/../nano", "x" * 150])
def test_what_ships_is_found_by_its_name_alone(name, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    refused(capsys, place, [f"model.name={name}"], "model.name=")
    refused(capsys, place, [f"dataset.name={name}"], "dataset.name=")


def refused(capsys, folder, arguments, says):
    """Exit code 2, one line of bearable length, and nothing is written."""
    before = set(folder.rglob("*"))
    assert main(arguments) == MISUSED
    printed = capsys.readouterr()
    assert says in printed.err
    assert len(printed.err.strip().split("\n")) == 1
    assert len(printed.err) < 600
    assert printed.out == ""
    assert set(folder.rglob("*")) == before


FIGURES = ["../../evil", "/evil", "..", ".", "", "a\nb", "x" * 4000, "\0", "a//b", "a/../b", "clean"]


@pytest.mark.parametrize("split", FIGURES)
def test_a_figure_of_a_foreign_record_has_a_name_that_mlflow_takes(split):
    """A record made elsewhere may hold any name of a split."""
    from mlflow.utils.validation import _validate_metric_name

    name = describe.plain_name(f"quality/wer_{split}")
    _validate_metric_name(name)
    assert split != "clean" or name == "quality/wer_clean"
