"""From the export to the recommendation, by way of a machine that has neither quantlab nor torch."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.bundling import QUANTS
from quantlab.bundle import measure as script
from quantlab.cli.merge import main as merge
from quantlab.cli.recommend import main as recommend
from quantlab.cli.verify import main as verify
from quantlab.records import storage
from quantlab.records.several import merge as copied
from quantlab.report.__main__ import main as report
from quantlab.report.summaries import summaries


def bundled_records(root):
    return {record.setting("quant.name"): record for record in storage.read_all(root) if record.bundle}


def texts(root, cell_id):
    return {item.id: item.hypothesis for item in storage.read_utterances(root, cell_id)}


def test_the_script_imports_neither_quantlab_nor_torch(python):
    names = set()
    for node in ast.walk(ast.parse(Path(script.__file__).read_text())):
        if isinstance(node, ast.Import):
            names |= {item.name.split(".")[0] for item in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names - sys.stdlib_module_names == {"numpy", "_pywhispercpp", "ctranslate2", "onnxruntime"}
    for name in ("quantlab", "torch", "transformers"):  # and could not
        done = subprocess.run([python, "-I", "-c", f"import {name}"], capture_output=True, text=True, check=False)
        assert "ModuleNotFoundError" in done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", QUANTS)
def test_an_engine_there_gives_the_texts_of_home(name, home, bundled, measure, tmp_path, capsys):
    root, exports = home
    folder = bundled(name)
    done = measure(folder, "--rounds", "0")
    assert done.returncode == 0, done.stderr
    there = tmp_path / "all"
    copied([root], there)
    assert merge([str(folder), "--into", str(there)]) == 0
    assert "1 record copied" in capsys.readouterr().out
    [record] = bundled_records(there).values()
    source = storage.read(root, record.bundle.source)
    assert exports[name].name.endswith(source.cell_id)
    assert texts(there, record.cell_id) == texts(root, source.cell_id)
    assert record.fingerprints["corpus"] == source.fingerprints["corpus"]  # its 16-bit audio was not rounded
    assert (record.setting("device.name"), record.receipt) == ("board", source.receipt)
    assert record.environment["versions"]["numpy"]
    assert record.environment["processor"]
    assert record.peak_memory_bytes > 10_000_000
    assert verify(["--root", str(there)]) == 0

    cells = {cell.cell_id: cell for cell in summaries(there)}
    cell = cells[record.cell_id]
    if name == "ort_fp32":
        assert (cell.is_baseline, cell.verdict) == (True, "baseline")
    else:  # fp32 at home heard the same audio: texts are compared, times are not
        assert cells[cell.baseline].settings.quant == "none"
        assert cell.comparison is not None
        assert cell.ratio is None
    capsys.readouterr()
    assert report(["--root", str(there)]) == 0
    shown = capsys.readouterr().out
    assert f"{name}" in shown
    assert "board" in shown
    assert ("against fp32 on another machine" in shown) == (name != "ort_fp32")


@pytest.mark.timeout(600)
def test_several_in_turns_with_a_baseline_of_the_same_machine(bundled, measure, capsys):
    folder = bundled(*QUANTS)
    assert "against nano-ort_fp32-cpu on the same machine" in bundled.said
    done = measure(folder, "--rounds", "2", device="pi5")
    assert done.returncode == 0, done.stderr
    assert merge([str(folder), "--into", str(folder.parent / "all")]) == 0
    assert merge([str(folder), "--into", str(folder.parent / "all")]) == 0  # the same, byte for byte
    assert "3 already there" in capsys.readouterr().out
    there = folder.parent / "all"
    found = bundled_records(there)
    assert {record.bundle.baseline for record in found.values()} == {found["ort_fp32"].cell_id}
    cells = {cell.settings.quant: cell for cell in summaries(there)}
    for name in ("ggml_q8_0", "ct2_int8"):
        speed, batches = found[name].speed, storage.read_batches(there, found[name].cell_id)
        assert (speed.blocks, len(batches)) == (2, 6 * (1 + 2 * 2 + 2 * 2))
        assert cells[name].baseline == found["ort_fp32"].cell_id
        # by hand: the faster of both turns of each side in a block; geometric mean over blocks
        ratio = 1.0
        for block in (0, 1):
            sides = {}
            for of in ("cell", "baseline"):
                calls = [item.elapsed_s for item in batches if item.of == of and item.block == block]
                sides[of] = min(sum(calls[:6]), sum(calls[6:]))
            ratio *= sides["cell"] / sides["baseline"]
        assert speed.ratio == pytest.approx(ratio**0.5)
        assert cells[name].rtf.ci95 is not None
    assert found["ort_fp32"].speed is None
    assert verify(["--root", str(there)]) == 0
    capsys.readouterr()
    assert recommend(["--root", str(there), "--device", "pi5", "--max-wer-increase", "50"]) in (0, 1)
    assert "nano-ort_fp32-pi5" in capsys.readouterr().out
    assert recommend(["--root", str(there), "--device", "pi6"]) == 1
    assert "no cell with device 'pi6' is recorded; recorded: pi5" in capsys.readouterr().err


@pytest.mark.timeout(600)
def test_it_goes_on_after_an_interruption(bundled, measure):
    folder = bundled("ct2_int8", "ort_fp32")
    done = measure(folder, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    result = folder / "measured" / "board.json"
    whole = json.loads(result.read_text())
    assert "exists" in measure(folder).stderr  # nothing is measured over

    # as if it had been killed in the round, after its third turn
    turns = folder / "measured" / "board.turns"
    turns.mkdir()
    result.unlink()
    settings = {"bundle": whole["bundle"], "threads": 1, "rounds": 1}
    (turns / "settings.json").write_text(json.dumps(settings))
    names = ["first-0", "first-1", "round0-0", "round0-1", "round0-2"]
    for name, turn in zip(names, whole["turns"], strict=False):
        (turns / f"{name}.json").write_text(json.dumps({key: turn[key] for key in turn if key != "round"}))
    again = measure(folder, "--rounds", "1")
    assert again.returncode == 0, again.stderr
    assert again.stderr.split() == [word for place, label in enumerate(
        ("nano-ct2_int8-cpu", "nano-ort_fp32-cpu", "nano-ort_fp32-cpu", "nano-ct2_int8-cpu")
    ) for word in (f"round0-{place}:", label)]  # fmt: skip
    found = json.loads(result.read_text())["turns"]
    assert found[:2] == whole["turns"][:2]  # kept
    assert [turn["round"] for turn in found] == [None, None, 0, 0, 0, 0]
    assert not turns.exists()
