import pytest
from compared import careful_grid, compared, paper_grid, uncompared

from quantlab.report import ranking
from quantlab.report.ranking import accuracy, rank, rtf_ci95, size, speed


def _quants(rows):
    return [row["quant"] for row in rows]


def test_the_leader_is_best_only_where_all_others_lie_apart():
    found = rank(careful_grid(), speed(careful_grid()))
    assert found.leader["quant"] == "torch_int8"
    assert _quants(found.level) == ["bnb_nf4"]  # [0.84, 0.88] touches [0.83, 0.85]
    assert not found.shown
    without = [row for row in careful_grid() if row["quant"] != "bnb_nf4"]
    assert rank(without, speed(without)).shown


def test_the_baseline_takes_part_with_a_ratio_of_one():
    rows = [row for row in careful_grid() if row["quant"] in ("none", "quanto_int8_static", "quanto_int8")]
    found = rank(rows, speed(rows))
    assert {found.leader["quant"], *_quants(found.level)} == {"none", "quanto_int8_static"}  # [0.99, 1.01] holds 1
    assert _quants(found.others) == ["quanto_int8"]


def test_what_was_timed_once_is_ordered_and_not_claimed():
    found = rank(paper_grid(), speed(paper_grid()))
    assert found.leader["quant"] == "torch_int8"
    assert len(found.unknown) == 6
    assert not found.shown


def test_ratios_against_different_baselines_do_not_compare_so_rtf_does():
    slow = compared("torch_int8", ratio=(0.4, 0.5, 0.6), baseline="large")
    fast = compared("bnb_nf4", ratio=(0.8, 0.9, 1.0), baseline="tiny")
    slow["splits"]["clean"]["generate_s"] *= 100
    assert rank([slow, fast], speed([slow, fast])).leader is fast


def test_rtf_intervals_tell_cells_of_different_models_apart():
    rows = [compared("torch_int8", baseline="a"), compared("hqq_int3", baseline="b")]
    for row in rows:
        for split in row["splits"].values():
            split["rtf_ci95"] = [split["rtf"] * 0.98, split["rtf"] * 1.02]
    assert rank(rows, speed(rows)).shown
    for split in rows[1]["splits"].values():
        split["rtf_ci95"] = [0.0001, 1.0]
    assert _quants(rank(rows, speed(rows)).level) == ["hqq_int3"]


def test_the_interval_of_the_whole_rtf_weighs_splits_by_audio():
    row = uncompared("none")
    row["splits"]["clean"] |= {"rtf_ci95": [0.1, 0.2], "audio_s": 10.0}
    row["splits"]["other"] |= {"rtf_ci95": [0.4, 0.8], "audio_s": 30.0}
    assert rtf_ci95(row) == pytest.approx((0.325, 0.65))
    row["splits"]["other"]["rtf_ci95"] = None
    assert rtf_ci95(row) is None


def test_accuracy_is_paired_where_cells_share_a_baseline():
    # hqq_int3 − none is 2.8 points ± 0.4, though the intervals of the two rates, ± 3 points, overlap
    rows = [compared("none"), compared("hqq_int3")]
    for row in rows:
        row["wer_ci95"] = [row["wer"] - 0.03, row["wer"] + 0.03]
    assert rank(rows, accuracy()).shown
    rows[1]["baseline"] = "another"
    assert not rank(rows, accuracy()).shown


def test_accuracy_without_intervals_is_unknown():
    rows = [uncompared("none"), uncompared("hqq_int3")]
    assert rank(rows, accuracy("wer", "clean")).unknown == (rows[1],)


def test_bytes_are_exact_so_only_equal_sizes_are_level():
    rows = [compared(quant) for quant in ("quanto_int8", "torch_int8", "none")]
    found = rank(rows, size())
    assert (found.leader["quant"], _quants(found.level), _quants(found.others)) == (
        "quanto_int8", ["torch_int8"], ["none"])  # fmt: skip


def test_rows_without_the_figure_do_not_take_part():
    row = uncompared("none")
    row["size_bytes"] = None
    assert rank([row], size()) is None
    assert rank([], size()) is None
    assert ranking.rtf({"splits": {}}) is None
