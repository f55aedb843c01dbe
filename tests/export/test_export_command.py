"""The grid and the command as a user runs them: what is recorded is exported without being measured again."""

import json
import re
import shutil

import pytest

from helpers.synthetic import result
from quantlab.config.compose import compose
from quantlab.export import load
from quantlab.export.__main__ import main
from quantlab.export.manifest import NAME, README
from quantlab.export.missing import export_missing
from quantlab.export.place import is_whole
from quantlab.grid.plan import plan
from quantlab.records import storage
from quantlab.util.errors import ConfigError

SMALL = ("dataset.limit=2", "dataset.splits=[other]", "protocol=quick", "device=cpu", "tracking=off")


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(600)  # two grids and a command, each of which imports torch anew
def test_the_grid_exports_what_it_measures_and_what_was_recorded_before(quantlab, capsys):
    root, directory = quantlab.folder / "mlruns", quantlab.folder / "exported"
    assert quantlab("quant=torch_int8", *SMALL).returncode == 0
    measured = stamps(root / "cells")
    done = quantlab("-m", "quant=torch_int8,ct2_int8", "export.dir=exported", *SMALL)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("recorded before") == 1
    assert not re.search(r"^(W\d{4} |\[transformers\])|Warning", done.stderr, re.MULTILINE), "libraries are silent"
    assert measured.items() <= stamps(root / "cells").items(), "nothing is measured twice"
    [first, second] = sorted(path.name for path in directory.iterdir())
    assert (first[:17], second[:19]) == ("nano-ct2_int8-cpu", "nano-torch_int8-cpu")

    written = stamps(directory)
    assert export_missing(root, list(storage.read_all(root)), str(directory))
    assert main(["--root", str(root), "--dir", str(directory)]) == 0
    assert capsys.readouterr().out.count("is exported already") == 2
    assert stamps(directory) == written, "nothing is exported twice"

    # a record whose words are not what this model hears
    [cell] = [path for path in (root / "cells").iterdir() if first.endswith(path.name)]
    lines = [json.loads(line) for line in (cell / "utterances.jsonl").read_text().splitlines()]
    lines[1]["hypothesis"] = "something else"
    (cell / "utterances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["--root", str(root), "--dir", str(quantlab.folder / "elsewhere"), cell.name]) == 1
    said = capsys.readouterr().err
    assert f"cell {cell.name} is not exported: the rebuilt model gives other texts" in said
    assert lines[1]["id"] in said
    assert list((quantlab.folder / "elsewhere").iterdir()) == []


def test_misuse(tmp_path, capsys):
    assert main(["--root", str(tmp_path), "--dir", "exported"]) == 1
    assert "no records in" in capsys.readouterr().err
    cell = tmp_path / "cells" / "0123456789abcdef"
    cell.mkdir(parents=True)
    (cell / "record.json").write_text("{")
    assert main(["--root", str(tmp_path), "--dir", "exported", "0123456789abcdee"]) == 2
    assert "no record of cell '0123456789abcdee'" in capsys.readouterr().err


@pytest.fixture
def cell(exported, tmp_path):
    """A recorded cell, `(root, directory, its folder)`, whose export may be spoiled."""
    result, folder = exported("ggml_q8_0")
    storage.write(tmp_path, result)
    return tmp_path, tmp_path / "exported", shutil.copytree(folder, tmp_path / "exported" / folder.name)


def export(cell):
    root, directory, _ = cell
    return main(["--root", str(root), "--dir", str(directory)])


def test_an_export_as_it_was_written_is_not_written_again(cell, capsys):
    assert export(cell) == 0
    said = capsys.readouterr().out
    assert "is exported already" in said
    file_mb = (cell[2] / "ggml-model.bin").stat().st_size / 1e6
    size_mb = next(storage.read_all(cell[0])).receipt.size_bytes / 1e6
    assert file_mb > 2 * size_mb
    sizes = (
        f"file: {file_mb:.1f} MB; weights (the size in reports): {size_mb:.1f} MB, the rest is rows that whisper.cpp"
    )
    assert sizes in said
    assert sizes in (cell[2] / README).read_text()


def edit_manifest(folder):
    stated = json.loads((folder / NAME).read_text())
    stated["decoding"]["max_new_tokens"] += 1
    (folder / NAME).write_text(json.dumps(stated))


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda folder: (folder / README).write_text("mine"), f"has changed files: {README}"),
        (lambda folder: (folder / README).unlink(), f"lacks {README}"),
        (lambda folder: (folder / "config.json").write_text("{}"), "has changed files: config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "lacks tokenizer.json"),
        (lambda folder: (folder / "notes.txt").touch(), "has unlisted files: notes.txt"),
        (lambda folder: (folder / NAME).unlink(), f"has no {NAME}"),
        (edit_manifest, f"has changed files: {NAME}"),
    ],
)
def test_an_export_that_was_changed_is_said_and_left_alone(cell, capsys, spoil, word):
    root, directory, folder = cell
    spoil(folder)
    before = stamps(folder)
    assert export(cell) == 1
    said = capsys.readouterr().err
    assert word in said
    assert "delete this folder or move it away, then the same command writes it again" in said
    assert len(said.splitlines()) == 1
    assert stamps(folder) == before
    assert not is_whole(str(directory), next(storage.read_all(root)).cell_id), "a grid says so too"


def test_the_export_of_another_cell_is_not_this_ones(cell, capsys):
    root, directory, folder = cell
    folder.rename(directory / "nano-none-cpu-0123456789abcdef")
    storage.write(root, result("none", cell_id="0123456789abcdef"))
    assert main(["--root", str(root), "--dir", str(directory), "0123456789abcdef"]) == 1
    assert "it holds the model of cell" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "quant", "says"),
    [
        ("ggml_q8_0", "none", "quant=ggml_q8_0: its file is measured by quant=as_shipped model.path={}/ggml-model.bin"),
        ("ggml_q8_0", "as_shipped", "its file is measured by quant=as_shipped model.path={}/ggml-model.bin"),
        ("ct2_int8", "none", "is already quantized (int8): measure it unchanged with quant=as_shipped"),
        ("hqq_int4", "none", "is an export of quantlab, quant=hqq_int4: quantlab.export.load reads it"),
        ("hqq_int4", "as_shipped", "give the checkpoint that it was made from, and the same quant"),
    ],
)
def test_an_export_as_a_checkpoint_is_told_what_measures_it(exported, name, quant, says):
    folder = exported(name)[1]
    config = compose([f"quant={quant}", f"model.path={folder}", "model.name=mine"])
    with pytest.raises(ConfigError) as raised:
        plan(config)
    assert says.format(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_readme_of_ones_own_is_no_obstacle_to_loading(cell):
    (cell[2] / README).write_text("mine")
    load(cell[2])


def test_an_export_of_an_earlier_version_has_fewer_digests(cell, capsys):
    stated = json.loads((cell[2] / NAME).read_text())
    (cell[2] / NAME).write_text(
        json.dumps({key: stated[key] for key in stated.keys() - {"size_bytes", "readme", "own"}})
    )
    assert export(cell) == 0
    assert "is exported already" in capsys.readouterr().out


def test_a_file_in_the_folders_place_names_the_option_that_was_typed(cell, capsys):
    file = cell[0] / "a file"
    file.touch()
    assert main(["--root", str(cell[0]), "--dir", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"quantlab: --dir {file} cannot be made: it is a file; name a folder that can be written to\n"
    )
