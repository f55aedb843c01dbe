"""The grid and the command as a user runs them: what is recorded is exported without being measured again."""

import json

from quantlab.export.__main__ import main

SMALL = ("dataset.limit=2", "dataset.splits=[other]", "protocol=quick", "device=cpu", "tracking=off")


def folders(quantlab):
    return sorted(path.name for path in (quantlab.folder / "exported").iterdir())


def stamps(quantlab):
    return {path: path.stat().st_mtime_ns for path in (quantlab.folder / "mlruns" / "cells").rglob("*.json*")}


def test_the_grid_exports_what_it_measures_and_what_was_recorded_before(quantlab):
    assert quantlab("quant=torch_int8", *SMALL).returncode == 0
    before = stamps(quantlab)
    both = ("-m", "quant=torch_int8,bnb_nf4", "export.dir=exported", *SMALL)
    done = quantlab(*both)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("recorded before") == 1
    [first, second] = folders(quantlab)
    assert (first[:16], second[:19]) == ("nano-bnb_nf4-cpu", "nano-torch_int8-cpu")
    assert before.items() <= stamps(quantlab).items(), "nothing is measured twice"
    made = {name: (quantlab.folder / "exported" / name).stat().st_mtime_ns for name in (first, second)}
    again = quantlab(*both)
    assert again.returncode == 0
    assert again.stderr.count("recorded before") == 2
    assert made == {name: (quantlab.folder / "exported" / name).stat().st_mtime_ns for name in (first, second)}

    # a record whose words are not what this model hears: the command refuses, and says which utterance
    [cell] = [path for path in (quantlab.folder / "mlruns" / "cells").iterdir() if first.endswith(path.name)]
    lines = [json.loads(line) for line in (cell / "utterances.jsonl").read_text().splitlines()]
    lines[1]["hypothesis"] = "something else"
    (cell / "utterances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    refused = quantlab("--dir", "elsewhere", cell.name, module="quantlab.export")
    assert refused.returncode == 1
    assert f"cell {cell.name} is not exported: made again, the model hears something else" in refused.stderr
    assert lines[1]["id"] in refused.stderr
    assert list((quantlab.folder / "elsewhere").iterdir()) == []


def test_misuse(tmp_path, capsys):
    assert main(["--root", str(tmp_path), "--dir", "exported"]) == 1
    assert "no records below" in capsys.readouterr().err
    cell = tmp_path / "cells" / "0123456789abcdef"
    cell.mkdir(parents=True)
    (cell / "record.json").write_text("{")
    assert main(["--root", str(tmp_path), "--dir", "exported", "0123456789abcdee"]) == 2
    assert "no cell '0123456789abcdee'" in capsys.readouterr().err
