"""Cells that stop once their verdict is known: a real grid, its records, and what readers make of them."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.synthetic import result
from quantlab.analysis.evidence import evidence
from quantlab.analysis.looks import again
from quantlab.analysis.pairs import read_scores
from quantlab.cli import rescore, verify
from quantlab.config.compose import compose
from quantlab.config.schema import ProtocolConfig
from quantlab.data import Features, SplitFeatures
from quantlab.data.order import balanced_order
from quantlab.data.parts import parts
from quantlab.export.from_record import export_from_record
from quantlab.grid.opponents import Opponents, in_turn
from quantlab.grid.plan import plan
from quantlab.records import storage
from quantlab.records.bundle import pack
from quantlab.records.several import stored
from quantlab.report.ranking import accuracy, marks
from quantlab.report.summaries import summaries
from quantlab.report.table import text
from quantlab.stats.paired import ALPHA
from quantlab.util.errors import ConfigError

pytestmark = pytest.mark.minutes


def split_of(name, texts, windows=1):
    ids = tuple(f"{name}{number}" for number in range(len(texts)) for _ in range(windows))
    rows = len(ids)
    return SplitFeatures(
        ids=ids,
        texts=tuple(text for text in texts for _ in range(windows)),
        speakers=(None,) * rows,
        audio_s=(1.0,) * rows,
        new_s=(1.0,) * rows,
        stored=np.zeros((rows, 1, 1), dtype=np.float32),
        rows=tuple(range(rows)),
    )


def test_parts_share_out_splits_windows_and_what_has_no_words():
    speech = Features({"a": split_of("a", ["yes"] * 30, 2), "b": split_of("b", ["no"] * 10 + [""] * 10)}, ())
    found = parts(speech, 5, seed=3)
    assert len(found) == 5
    for part in found:
        assert [len(set(split.ids)) for split in part.splits.values()] == [6, 4]
        assert part.splits["b"].texts.count("no") == 2
        assert part.splits["a"].ids[::2] == part.splits["a"].ids[1::2]  # windows of one recording stay together
    assert sorted(id for part in found for split in part.splits.values() for id in split.ids) == sorted(
        id for split in speech.splits.values() for id in split.ids
    )
    assert parts(speech, None, 3) == [speech]
    silent = Features({"b": split_of("b", [""] * 4)}, ())
    assert [len(part.splits["b"].ids) for part in parts(silent, 3, 0)] == [4]


def test_stopping_and_interleaved_timing_exclude_each_other():
    with pytest.raises(ValueError, match="interleave=true, looks=10: one of them"):
        ProtocolConfig(name="both", looks=10, interleave=True)


ASKED = ("quant=hqq_int2,hqq_int8,none", "protocol=adaptive", "dataset.limit=60", "device=cpu", "tracking=off")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptive")
    command = [sys.executable, "-m", "quantlab", "-m", *ASKED]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(folder=folder / "mlruns", printed=done)


def cells(root):
    return {row.settings.quant: row for row in summaries(root, on_unreadable=pytest.fail)}


def test_what_is_lost_stops_early_and_the_baseline_comes_first(root):
    found = cells(root.folder)
    order = [line.split()[1] for line in root.printed.stderr.splitlines() if line.endswith("started")]
    assert "none" in order[0]
    lost, held = found["hqq_int2"], found["hqq_int8"]
    assert found["none"].record.adaptive is None
    assert found["none"].utterances == 120
    used = lost.record.adaptive
    assert (used.available, used.cells, used.baseline) == (120, 2, found["none"].cell_id)
    assert used.stopped_by == lost.verdict == "worse"
    assert used.used == lost.utterances < 60
    assert lost.comparison.p_holm < ALPHA
    assert lost.comparison.wer_difference.value == pytest.approx(used.looks[-1].difference)
    assert held.record.adaptive.used > used.used
    assert f"worse after {used.used} of 120 utterances" in root.printed.stderr


def test_utterances_are_the_first_of_the_seeds_order(root):
    found = cells(root.folder)
    whole = storage.read_utterances(root.folder, found["none"].cell_id)
    order = balanced_order(
        0, [item.id for item in whole], [item.split for item in whole], [item.speaker for item in whole]
    )
    measured = storage.read_utterances(root.folder, found["hqq_int2"].cell_id)
    assert {item.id for item in measured} == {whole[index].id for index in order[: len(measured)]}
    by_id = {item.id: item for item in whole}
    assert all(by_id[item.id].reference == item.reference for item in measured)


def test_looks_are_verified_and_a_forged_one_is_found(root, tmp_path):
    shutil.copytree(root.folder, tmp_path / "copy")
    assert verify.verify(tmp_path / "copy") == []
    cell_id = cells(root.folder)["hqq_int2"].cell_id
    path = storage.cells_dir(tmp_path / "copy") / cell_id / "record.json"
    record = json.loads(path.read_text())
    record["adaptive"]["looks"][-1]["z"] += 1
    path.write_text(json.dumps(record))
    assert [item.place for item in verify.verify(tmp_path / "copy")] == [
        f"adaptive.looks[{len(record['adaptive']['looks']) - 1}].z"
    ]


def test_another_order_than_the_seeds_is_found(root, tmp_path):
    shutil.copytree(root.folder, tmp_path / "copy")
    found = cells(root.folder)["hqq_int2"]
    path = storage.cells_dir(tmp_path / "copy") / found.cell_id / "record.json"
    record = json.loads(path.read_text())
    record["config"]["seed"] = 1
    path.write_text(json.dumps(record))
    assert any("order" in item.place for item in verify.verify(tmp_path / "copy"))


def test_readers_do_not_take_a_part_for_the_corpus(root):
    found = cells(root.folder)
    lost = found["hqq_int2"]
    assert lost.wer.ci95 is None
    assert all(split.evidence.wer_ci95 is None for split in lost.splits.values())
    assert marks(list(found.values()), accuracy()) == {}
    assert lost.to_dict()["adaptive"]["stopped_by"] == "worse"
    share = f"{100 * lost.utterances / 120:.0f} %"
    table = text(list(found.values()))
    assert f"error rates are those of {share} of the corpus" in table
    assert {item.verdict for item in lost.published} <= {"not comparable"}


def test_a_wider_margin_of_the_report_judges_by_the_same_looks(root):
    found = {row.settings.quant: row for row in summaries(root.folder, margin=200)}
    assert found["hqq_int2"].verdict == "worse"  # shown, whatever the margin
    assert found["hqq_int8"].verdict == "tied"


def test_without_its_baseline_there_is_no_verdict_and_nothing_is_verified(root, tmp_path):
    shutil.copytree(root.folder, tmp_path / "copy")
    found = cells(root.folder)
    shutil.rmtree(storage.cells_dir(tmp_path / "copy") / found["none"].cell_id)
    alone = cells(tmp_path / "copy")["hqq_int2"]
    assert alone.verdict is None
    assert [item.place for item in verify.verify(tmp_path / "copy")] == ["adaptive", "adaptive"]


def test_counts_that_do_not_fit_the_looks_are_no_comparison(root):
    found = stored(root.folder, None, pytest.fail)
    scores = read_scores(found, pytest.fail)
    known = {item.record.setting("quant.name"): item.record for item in found}
    lost, baseline = known["hqq_int2"], scores[known["none"].cell_id]
    shorter = scores[lost.cell_id]
    few = shorter._replace(sample=shorter.sample.only(range(3)))
    with pytest.raises(ValueError, match="not those of its looks"):
        again(lost.adaptive, few, baseline)


def test_a_stopped_cell_is_compared_with_nothing_but_its_baseline(root):
    said = []
    found = summaries(root.folder, against="hqq_int8", on_unreadable=said.append)
    lost = next(row for row in found if row.settings.quant == "hqq_int2")
    assert lost.verdict is None
    assert any("compared with its baseline only" in line for line in said)


def test_evidence_of_complete_cells_is_as_before(root):
    found = stored(root.folder, None, pytest.fail)
    baseline = next(item.record.cell_id for item in found if item.record.setting("quant.name") == "none")
    assert evidence(found)[baseline].wer_ci95 is not None


def test_a_cell_whose_baseline_is_not_recorded_is_refused_elsewhere(tmp_path):
    planned = plan(compose(["quant=none,hqq_int8", "protocol=adaptive"]))
    assert [cell.config.quant.name for cell in in_turn(planned[::-1])] == ["none", "hqq_int8"]
    with pytest.raises(ConfigError, match="submit quant=none, and the rest when it is done"):
        Opponents(tmp_path, planned, None, print).check(planned)


def test_looks_in_a_record_must_grow():
    record = result("hqq_int4").record
    look = {
        "utterances": 4,
        "words": 10,
        "difference": 0,
        "low": None,
        "high": None,
        "z": 0,
        "bound": 3,
        "verdict": None,
    }
    adaptive = {"baseline": "b", "used": 8, "available": 9, "words": 50, "cells": 1, "margin": 0.005}
    adaptive |= {"spending": "pocock", "spending_tied": "obrien_fleming", "looks": [look, look]}
    with pytest.raises(ValueError, match="looks that do not grow"):
        type(record).model_validate(record.model_dump() | {"adaptive": adaptive})


def test_a_stopped_cell_is_not_rescored_and_looks_of_other_counts_are_not_kept(root, tmp_path, capsys):
    assert rescore.main(["--root", str(root.folder), "--normaliser", "none", "--output", str(tmp_path / "out")]) == 0
    found = cells(root.folder)
    lost, held = found["hqq_int2"], found["hqq_int8"]
    assert f"cell {lost.cell_id} is not rescored" in capsys.readouterr().err
    left = {item.record.cell_id: item.record for item in stored(tmp_path / "out", None, pytest.fail)}
    assert lost.cell_id not in left
    if not held.stopped_early:
        assert left[held.cell_id].adaptive is None


def test_a_stopped_cell_is_exported_as_it_was_measured(root, tmp_path):
    lost = cells(root.folder)["hqq_int2"]
    done = export_from_record(root.folder, lost.record, str(tmp_path / "models"))
    assert done.problem is None


def test_a_stopped_cell_is_no_baseline_of_a_gate(root):
    with pytest.raises(ValueError, match="it stopped early"):
        pack(root.folder, cells(root.folder)["hqq_int2"].record)
