from dataclasses import replace

import pytest

from helpers.compared import careful_grid, changed, compared, paper_grid, split_changed, uncompared
from quantlab.report.ranking import Metric, accuracy, marks, rank, rtf, size, speed


def _quants(rows):
    return [row.settings.quant for row in rows]


def _with_evidence(row, **changes):
    return replace(row, evidence=replace(row.evidence, **changes))


def test_the_leader_is_best_only_where_all_others_lie_apart():
    found = rank(careful_grid(), speed(careful_grid()))
    assert found.leader.settings.quant == "torch_int8"
    assert _quants(found.level) == ["bnb_nf4"]  # [0.84, 0.88] touches [0.83, 0.85]
    assert not found.shown
    without = [row for row in careful_grid() if row.settings.quant != "bnb_nf4"]
    assert rank(without, speed(without)).shown


def test_the_baseline_takes_part_with_a_ratio_of_one():
    rows = [row for row in careful_grid() if row.settings.quant in ("none", "quanto_int8_static", "quanto_int8")]
    found = rank(rows, speed(rows))
    assert {found.leader.settings.quant, *_quants(found.level)} == {
        "none",
        "quanto_int8_static",
    }  # [0.99, 1.01] holds 1
    assert _quants(found.others) == ["quanto_int8"]


def test_what_was_timed_once_is_ordered_and_not_claimed():
    found = rank(paper_grid(), speed(paper_grid()))
    assert found.leader.settings.quant == "torch_int8"
    assert len(found.unknown) == 6
    assert not found.shown


def test_a_figure_measured_once_is_not_marked_as_the_best():
    rows = paper_grid()
    assert marks(rows, speed(rows)) == {}
    assert set(marks(rows, size()).values()) == {"best"}  # sizes are exact
    once = [*careful_grid(), uncompared("hqq_int3", cell_id="once")]
    assert marks(once, Metric(rtf)) == {}


def test_ratios_against_different_baselines_do_not_compare_so_rtf_does():
    slow = compared("torch_int8", ratio=(0.4, 0.5, 0.6), baseline="large")
    fast = compared("bnb_nf4", ratio=(0.8, 0.9, 1.0), baseline="tiny")
    slow = split_changed(slow, "clean", generate_s=1000.0)
    assert rank([slow, fast], speed([slow, fast])).leader is fast


def test_rtf_intervals_tell_cells_of_different_models_apart():
    rows = [compared("torch_int8", baseline="a"), compared("hqq_int3", baseline="b")]
    rows = [split_changed(row, rtf_ci95=(row.rtf.value * 0.98, row.rtf.value * 1.02)) for row in rows]
    assert rank(rows, speed(rows)).shown
    rows[1] = split_changed(rows[1], rtf_ci95=(0.0001, 1.0))
    assert _quants(rank(rows, speed(rows)).level) == ["hqq_int3"]


def test_the_interval_of_the_whole_rtf_weighs_splits_by_audio():
    row = split_changed(uncompared("none"), "clean", rtf_ci95=(0.1, 0.2), audio_s=10.0, generate_s=1.0)
    row = split_changed(row, "other", rtf_ci95=(0.4, 0.8), audio_s=30.0, generate_s=9.0)
    assert row.rtf.value == 10 / 40
    assert row.rtf.ci95 == pytest.approx((0.325, 0.65))
    assert split_changed(row, "other", rtf_ci95=None).rtf.ci95 is None
    assert changed(row, splits={}).rtf is None


def test_accuracy_is_paired_where_cells_share_a_baseline():
    # hqq_int3 − none is 2.8 points ± 0.4, though the intervals of the two rates, ± 3 points, overlap
    none, int3 = (_with_evidence(compared(quant), wer_ci95=(0.03, 0.15)) for quant in ("none", "hqq_int3"))
    assert rank([none, int3], accuracy()).shown
    assert not rank([none, _with_evidence(int3, baseline="another")], accuracy()).shown


def test_accuracy_without_intervals_is_unknown():
    rows = [uncompared("none"), uncompared("hqq_int3")]
    assert rank(rows, accuracy("wer", "clean")).unknown == (rows[1],)


def test_bytes_are_exact_so_only_equal_sizes_are_level():
    rows = [compared(quant) for quant in ("quanto_int8", "torch_int8", "none")]
    found = rank(rows, size())
    assert (found.leader.settings.quant, _quants(found.level), _quants(found.others)) == (
        "quanto_int8", ["torch_int8"], ["none"])  # fmt: skip


def test_rows_without_the_figure_do_not_take_part():
    assert rank([changed(uncompared("none"), receipt=None)], size()) is None
    assert rank([], size()) is None
