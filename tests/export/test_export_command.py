"""The grid and the command as a user runs them: what is recorded is exported without being measured again."""

import json

import pytest

from quantlab.export.__main__ import main
from quantlab.export.missing import export_missing
from quantlab.records import storage

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
