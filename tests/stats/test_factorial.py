"""Main effects against least squares on a balanced design, and against loops over utterances and resamples."""

import itertools

import numpy as np
import pytest

from quantlab.stats.bootstrap import MIN_UNITS, interval
from quantlab.stats.factorial import Matched, main_effects
from quantlab.stats.rates import Counts, Sample, resample

RESAMPLES = 2000
LEVELS = ((8, 4, 2), ("channel", "group"), (True, False))
COST = {8: 0.0, 4: 0.01, 2: 0.2, "channel": 0.05, "group": 0.0, True: 0.0, False: -0.02}


def sample_of(utterances, speakers=12):
    chance = np.random.default_rng(0)
    words = chance.integers(3, 20, size=utterances)
    return Sample(
        splits=tuple("clean" if index % 2 else "other" for index in range(utterances)),
        ids=tuple(map(str, range(utterances))),
        speakers=tuple(f"s{number}" for number in chance.integers(speakers, size=utterances)),
        words=tuple(map(int, words)),
        chars=tuple(int(4 * count) for count in words),
    )


def factorial(sample):
    """Errors of the twelve systems of a 3 × 2 × 2 design, by their levels."""
    chance = np.random.default_rng(1)
    hard = chance.beta(2, 8, size=len(sample.words))
    found = {}
    for cell in itertools.product(*LEVELS):
        rate = np.clip(hard + sum(COST[level] for level in cell), 0, 1)
        words = chance.binomial(sample.words, rate)
        found[cell] = Counts(words, 3 * words)
    return found


def pairs_of(systems, factor, reference, level):
    """Every pair of cells that differ in one factor alone."""
    return [
        (cell, (*cell[:factor], level, *cell[factor + 1 :]))
        for cell in systems
        if cell[factor] == reference
    ]  # fmt: skip


CONTRASTS = [(0, 8, 4), (0, 8, 2), (1, "channel", "group"), (2, True, False)]


def effects_of(sample, systems):
    pairs = [
        [Matched(systems[a], systems[b]) for a, b in pairs_of(systems, *contrast)] for contrast in CONTRASTS
    ]  # fmt: skip
    return list(main_effects(sample, pairs, RESAMPLES))


def test_the_point_estimates_are_those_of_least_squares():
    """On a balanced design the coefficients of dummy variables are the differences of means."""
    sample = sample_of(200)
    systems = factorial(sample)
    wer = np.array([counts.words.sum() / sum(sample.words) for counts in systems.values()])
    dummies = [
        [cell[0] == 4, cell[0] == 2, cell[1] == "group", cell[2] is False] for cell in systems
    ]  # fmt: skip
    design = np.column_stack([np.ones(len(wer)), np.array(dummies, dtype=float)])
    _, *coefficients = np.linalg.lstsq(design, wer, rcond=None)[0]
    effects = effects_of(sample, systems)
    assert [effect.mean.value for effect in effects] == pytest.approx(coefficients)
    assert [effect.pairs for effect in effects] == [4, 4, 6, 6]


def test_the_intervals_are_those_of_the_systems_own_resamples():
    """Every system by itself, then its difference in each resample: as far a way round as there is."""
    sample = sample_of(150)
    systems = factorial(sample)
    alone = dict(zip(systems, resample(sample, list(systems.values()), RESAMPLES), strict=True))
    rates = {cell: result.samples.copy() for cell, result in alone.items()}
    for effect, contrast in zip(effects_of(sample, systems), CONTRASTS, strict=True):
        differences = [rates[b] - rates[a] for a, b in pairs_of(systems, *contrast)]
        low, high = interval(np.mean(differences, axis=0))
        assert effect.mean.ci95 == pytest.approx((low, high))
        own = [
            alone[b].pooled.wer.value - alone[a].pooled.wer.value for a, b in pairs_of(systems, *contrast)
        ]  # fmt: skip
        assert (effect.smallest, effect.largest) == pytest.approx((min(own), max(own)))
        assert (effect.p < 0.05) == (not low <= 0 <= high)


def test_the_true_effect_is_found_and_one_that_is_not_there_is_not():
    sample = sample_of(2000, speakers=40)
    systems = factorial(sample)
    _, two_bits, _, _ = effects_of(sample, systems)
    low, high = two_bits.mean.ci95
    assert low < 0.2 < high or abs(two_bits.mean.value - 0.2) < 0.02  # rates are cut at 1
    assert two_bits.p < 1e-3
    first, *_ = systems.values()
    [nothing] = main_effects(sample, [[Matched(first, first)]], RESAMPLES)
    assert (nothing.mean.value, nothing.mean.ci95, nothing.p) == (0, (0, 0), 1)


def test_too_few_units_give_no_interval():
    sample = sample_of(MIN_UNITS - 1, speakers=2)
    systems = factorial(sample)
    for effect in effects_of(sample, systems):
        assert (effect.mean.ci95, effect.p) == (None, 1.0)
