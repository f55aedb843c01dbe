"""Shares and paired differences against scipy, cases counted by hand, and simulated speakers."""

import numpy as np
import pytest
from scipy import stats

from quantlab.stats.bootstrap import choose_units
from quantlab.stats.shares import share, swapped_p


def units_of(count, speakers=None):
    return choose_units(["a"] * count, [None] * count if speakers is None else [f"s{one}" for one in speakers])


def test_independent_utterances_have_wilsons_interval():
    found = share([1] * 7 + [0] * 93, [1] * 100, units_of(100))
    low, high = stats.binomtest(7, 100).proportion_ci(method="wilson")
    assert found.value == 0.07
    assert found.ci95[0] == pytest.approx(low, rel=0.05)  # t with 99 degrees of freedom
    assert found.ci95[1] == pytest.approx(high, rel=0.02)


@pytest.mark.parametrize(("events", "ends"), [(0, (0.0, 3.8415 / 103.8415)), (1, (1 - 3.8415 / 103.8415, 1.0))])
def test_none_and_all_have_an_interval_of_their_own(events, ends):
    found = share([events] * 100, [1] * 100, units_of(100))
    assert found.ci95 == pytest.approx(ends, abs=1e-5)


def test_events_of_one_speaker_are_worth_less():
    speakers = [index // 10 for index in range(200)]
    apart = share([index % 20 == 0 for index in range(200)], [1] * 200, units_of(200, speakers))
    together = share([index < 10 for index in range(200)], [1] * 200, units_of(200, speakers))
    assert apart.value == together.value == 0.05
    assert together.ci95[1] > 1.8 * apart.ci95[1]


def test_nothing_has_no_share_and_few_have_no_interval():
    assert share([0] * 20, [0] * 20, units_of(20)) is None
    assert share([1, 0], [1, 1], units_of(2)).ci95 is None


@pytest.mark.parametrize(("rate", "spread"), [(0.01, None), (0.03, 5.0), (0.9, 8.0)])
def test_intervals_hold_the_truth_where_speakers_differ(rate, spread):
    chance = np.random.default_rng(7)
    speakers = np.repeat(np.arange(30), 12)
    units = units_of(len(speakers), speakers.tolist())
    held = 0
    for _ in range(400):
        own = chance.beta(rate * spread, (1 - rate) * spread, size=30) if spread else np.full(30, rate)
        found = share(chance.random(len(speakers)) < own[speakers], np.ones(len(speakers)), units)
        held += found.ci95[0] <= rate <= found.ci95[1]
    assert held / 400 > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_one_event_an_utterance_is_mcnemars_exact_test(seed):
    chance = np.random.default_rng(seed)
    cell, base = (chance.random((2, 80)) < [[0.25], [0.12]]).astype(int)
    more, fewer = int((cell > base).sum()), int((cell < base).sum())
    expected = stats.binomtest(more, more + fewer).pvalue if more != fewer else 1.0
    assert swapped_p(cell - base, units_of(80)) == pytest.approx(expected)


def test_signs_counted_by_hand():
    """±3 ±2 ±2: 7 in one of eight ways, and −7 in one."""
    assert swapped_p([3, 0, 2, 0, 2], units_of(5)) == pytest.approx(2 / 8)
    assert swapped_p([3, 0, -2, 0, 2], units_of(5)) == pytest.approx(1.0 * 6 / 8)  # |sum| ≥ 3: all but ±(3 − 4)
    assert swapped_p([0] * 12, units_of(12)) == 1.0
    assert swapped_p([1, -1], units_of(2)) == 1.0


def test_a_speaker_counts_once():
    speakers = [index // 6 for index in range(72)]
    assert swapped_p([1] * 6 + [0] * 66, units_of(72, speakers)) == pytest.approx(1.0)
    assert swapped_p([1] * 6 + [0] * 66, units_of(72)) == pytest.approx(2 / 2**6)


def test_large_differences_are_taken_as_normal():
    chance = np.random.default_rng(3)
    differences = chance.integers(-40, 60, size=600)
    z = differences.sum() / np.sqrt((differences**2).sum())
    assert swapped_p(differences, units_of(600)) == pytest.approx(2 * stats.norm.sf(abs(z)))
    few = differences[:60]
    close = 2 * stats.norm.sf(abs(few.sum()) / np.sqrt((few**2).sum()))
    assert swapped_p(few, units_of(60)) == pytest.approx(close, abs=0.02)


def test_it_is_rarely_wrong_where_nothing_differs():
    chance = np.random.default_rng(1)
    speakers = np.repeat(np.arange(30), 12)
    units = units_of(len(speakers), speakers.tolist())
    wrong = 0
    for _ in range(500):
        own = chance.beta(0.05, 1.0, size=30)[speakers]
        cell, base = (chance.random((2, len(speakers))) < own).astype(int)
        wrong += swapped_p(cell - base, units) < 0.05
    assert wrong / 500 < 0.07
