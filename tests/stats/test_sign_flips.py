"""The exact test against all exchanges by hand, and its power against simulation."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from quantlab.stats.bootstrap import Units, choose_units
from quantlab.stats.sign_flips import Power, p_more


def units(count):
    return Units("utterance", np.arange(count), (count,))


@pytest.mark.parametrize("differences", [[3, 1, -2, 0, 4, 1, 1, -1], [1] * 6, [-1, -2, 1], [0, 0, 0], [9, -1, -1, -1]])
def test_p_is_the_share_of_all_exchanges(differences):
    values = np.array(differences)
    sums = [int((np.array(signs) * values).sum()) for signs in product((-1, 1), repeat=len(values))]
    exact = np.mean([total >= values.sum() for total in sums])
    assert p_more(values, units(len(values)), 100_000) == pytest.approx(exact, abs=0.005)


def test_it_agrees_with_scipy():
    values = np.random.default_rng(1).normal(0.3, 1, 40).round(1)
    theirs = stats.permutation_test((values,), np.sum, permutation_type="samples", alternative="greater",
                                    n_resamples=20_000, rng=0)  # fmt: skip
    assert p_more(values, units(40), 20_000) == pytest.approx(theirs.pvalue, abs=0.01)


def test_speakers_are_exchanged_as_a_whole():
    speakers = choose_units(["a"] * 40, [f"s{index // 4}" for index in range(40)])
    alike = np.repeat([1, 1, 1, 1, 1, 1, -1, -1, 1, 1], 4)
    assert p_more(alike, speakers) == pytest.approx(56 / 1024, abs=0.01)  # 8 of 10 or more: (45 + 10 + 1) / 2^10
    assert p_more(alike, units(40)) < 0.001


def test_at_most_five_per_cent_alarm_without_a_difference():
    chance = np.random.default_rng(5)
    tails = chance.standard_t(2, size=(1000, 12)).round(1)  # few units, heavy tails
    alarms = np.mean([p_more(row, units(12), 2000) < 0.05 for row in tails])
    assert alarms < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize("loss", [0.01, 0.02])
def test_what_is_stated_is_found(loss):
    chance = np.random.default_rng(3)
    words = chance.integers(60, 140, 40)
    noise = chance.poisson(1.5, (400, 40)) - chance.poisson(1.5, (400, 40))
    stated = np.mean([Power(row, words, units(40), 0.05).of(loss) for row in noise])
    found = np.mean([p_more(row + chance.poisson(loss * words), units(40), 1000) < 0.05 for row in noise])
    assert stated - 0.03 < found < stated + 0.1  # single errors vary less than the events that were seen


def test_the_findable_loss_is_the_one_with_that_power():
    differences, words = [3, 1, -2, 0, 4, 1, 1, -1, 0, 2], [50] * 10
    for values in (differences, [0] * 10):
        power = Power(values, words, units(10), 0.05)
        assert power.of(power.findable(0.8)) == pytest.approx(0.8, abs=1e-6)
