import numpy as np
import pytest

from helpers.compared import careful_grid, changed, compared, uncompared
from helpers.synthetic import bad_result, split_result
from quantlab.report import study
from quantlab.report.summaries import summary
from quantlab.stats.estimate import Estimate


def test_one_group_per_model_corpus_and_protocol():
    rows = [
        compared("none"),
        compared("none", model="small", baseline="b"),
        compared("none", dataset__name="librispeech", baseline="c"),
        compared("none", protocol__name="careful", baseline="d"),
        compared("torch_int8"),
        compared("torch_int8", device="cuda"),
        summary(bad_result("failed", "no").record),
    ]
    found = study.groups(rows)
    assert [len(group.rows) for group in found] == [3, 1, 1, 1]
    assert found[0].title == "nano on demo, protocol paper"
    assert found[0].splits == ("clean", "other")
    assert {device: len(some) for device, some in found[0].by_device().items()} == {"cpu": 2, "cuda": 1}


def test_random_weights_are_a_group_of_their_own():
    found = study.groups([compared("none"), compared("none", model__weights="random", baseline="b")])
    assert [group.title for group in found][1] == "nano (random weights) on demo, protocol paper"


def test_methods_of_a_device_are_told_apart_by_what_differs():
    rows = [
        compared("hqq_int4", cell_id="a"),
        compared("hqq_int4", cell_id="b", quant__group_size=16),
        compared("hqq_int4", cell_id="c", device="cuda"),
        compared("torch_int8", cell_id="d0123456789"),
        compared("torch_int8", cell_id="e0123456789"),
    ]
    assert study.groups(rows)[0].methods == {
        "a": "hqq_int4 (group_size=64)",
        "b": "hqq_int4 (group_size=16)",
        "c": "hqq_int4",
        "d0123456789": "torch_int8 (d0123456)",
        "e0123456789": "torch_int8 (e0123456)",
    }


def test_figure_1_is_the_difference_to_the_baseline_in_each_split():
    [group] = study.groups(careful_grid())
    changes = {row.settings.quant: change for row, change in study.increases(group)}
    assert "none" not in changes
    # 60 and 211 errors against 40 and 159, of 1280 words
    assert changes["hqq_int3"]["clean"].value == pytest.approx(20 / 1280)
    assert changes["hqq_int3"]["other"].value == pytest.approx(52 / 1280)
    assert changes["hqq_int3"]["other"].ci95 == pytest.approx((52 / 1280 - 0.004, 52 / 1280 + 0.004))


def test_the_gap_is_other_minus_clean_and_its_change_is_against_the_baseline():
    [group] = study.groups(careful_grid())
    found = {gap.row.settings.quant: gap for gap in study.gaps(group)}
    assert found["hqq_int3"].gap.value == pytest.approx((211 - 60) / 1280)
    assert found["hqq_int3"].change.value == pytest.approx((211 - 159 - 60 + 40) / 1280)
    assert found["none"].change is None
    # equal half-widths of independent estimates: √2 times one
    low, high = found["hqq_int3"].change.ci95
    assert high - low == pytest.approx(2 * 0.004 * 2**0.5)


def test_the_interval_of_a_difference_covers_as_often_as_it_says():
    """Against a simulation of two independent proportions, their Wilson intervals put in."""
    chance = np.random.default_rng(0)
    n, p, q = 400, 0.12, 0.03
    covered = 0
    for a, b in zip(chance.binomial(n, p, 2000) / n, chance.binomial(n, q, 2000) / n, strict=True):
        low, high = Estimate(a, _wilson(a, n)).minus(Estimate(b, _wilson(b, n))).ci95
        covered += low <= p - q <= high
    assert 0.93 < covered / 2000 < 0.97


def _wilson(p: float, n: int) -> tuple[float, float]:
    z = 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (middle - half, middle + half)


def test_a_difference_to_what_has_no_interval_has_none():
    assert Estimate(0.3).minus(Estimate(0.1, (0.0, 0.2))) == Estimate(pytest.approx(0.2))


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [((0.1, 0.2), (0.3, 0.4), True), ((0.1, 0.3), (0.3, 0.4), False), ((0.1, 0.2), None, None), (None, None, None)],
)
def test_estimates_are_apart_where_their_intervals_do_not_meet(one, other, apart):
    a, b = Estimate(0.15, one), Estimate(0.35, other)
    assert (a.apart(b), b.apart(a)) == (apart, apart)


def test_one_split_has_no_gap_and_others_are_measured_against_the_first():
    plain = compared("none")
    far, near = plain.record.splits.values()
    [gap] = study.gaps(study.groups([changed(plain, splits={"far": far, "near": near})])[0])
    assert (gap.easy, gap.hard) == ("far", "near")
    assert study.gaps(study.groups([changed(plain, splits={"far": far})])[0]) == []


def test_priorities_of_each_device():
    [group] = study.groups([*careful_grid(), uncompared("none", device="cuda", protocol__name="careful")])
    found = {choice.name: choice for choice in study.priorities(group)}
    assert set(found) == {"fastest", "most accurate", "smallest"}
    assert {choice.device for choice in found.values()} == {"cpu"}  # a single cell is no competition
    assert not found["fastest"].ranking.shown
    assert found["smallest"].ranking.leader.settings.quant == "hqq_int3"
    assert found["smallest"].ranking.shown


def test_random_weights_have_no_most_accurate_cell():
    rows = [uncompared(quant, model__weights="random") for quant in ("none", "torch_int8")]
    [group] = study.groups([changed(row, splits={"clean": split_result(None, 0.01)}) for row in rows])
    assert {choice.name for choice in study.priorities(group)} == {"fastest", "smallest"}
    assert study.increases(group) == study.gaps(group) == []
