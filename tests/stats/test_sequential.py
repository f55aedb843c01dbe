"""The test at every look: against scipy, few differences, repeated p-values and intervals, errors of simulations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from quantlab.stats.bootstrap import MIN_UNITS
from quantlab.stats.paired import ALPHA, holm
from quantlab.stats.sequential import Design, examine, repeated_p, seen
from quantlab.stats.spending import boundaries

MARGIN = 0.005
TEN = np.arange(1, 11) / 10


def corpus(shape, losing=0.05, gaining=0.05, speakers=40, size=2.0, seed=0):
    """Differences, words and speakers; utterances that differ do so by 1 + Poisson(size − 1) errors."""
    chance = np.random.default_rng(seed)
    words = chance.integers(5, 36, size=shape)
    kind = chance.choice([1, -1, 0], p=[losing, gaining, 1 - losing - gaining], size=shape)
    differences = kind * (1 + chance.poisson(size - 1, size=shape))
    return differences, words, np.broadcast_to(np.arange(shape[-1]) % speakers, shape)


def at_once(differences, words, units=None, design=None):
    """A single look at everything."""
    found = examine(seen(differences, words, units, [len(words)]), [1.0], design or Design(MARGIN))
    return [float(part[0]) for part in found]  # difference, low, high, z, bound, …


# One look at everything is an ordinary test.


def test_by_utterance_it_is_the_paired_t_test_where_all_have_as_many_words():
    differences = np.random.default_rng(1).integers(-3, 5, size=300)
    _, _, _, z, *_ = at_once(differences, np.full(300, 20))
    assert z == pytest.approx(stats.norm.isf(stats.ttest_1samp(differences, 0).pvalue / 2), rel=1e-9)


def test_by_speaker_it_is_the_t_test_of_their_sums():
    chance = np.random.default_rng(2)
    units = np.repeat(np.arange(25), 12)
    differences = chance.integers(-1, 2, size=300) + np.repeat(chance.integers(-2, 4, size=25), 12)
    _, _, _, z, *_ = at_once(differences, np.full(300, 20), units)
    sums = differences.reshape(25, 12).sum(axis=1)
    assert z == pytest.approx(stats.norm.isf(stats.ttest_1samp(sums, 0).pvalue / 2), rel=1e-9)


def test_speakers_who_are_less_alike_than_chance_do_not_make_it_more_certain():
    """Every speaker gains what it loses but one, so that speakers' sums hardly vary."""
    differences = np.tile([3, -3, 0, 0], 30)
    differences[0] = 6
    by_speaker = at_once(differences, np.full(120, 20), np.repeat(np.arange(30), 4))
    by_utterance = at_once(differences, np.full(120, 20))
    assert by_speaker[1] <= by_utterance[1] < by_utterance[2] <= by_speaker[2]


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_ends_at_differences_that_the_score_test_just_rejects(losses, gains):
    """Against Tango's statistic from the likelihood itself: the larger of its variance and the unrestricted one."""
    differences = np.zeros(500, dtype=int)
    differences[:losses], differences[losses : losses + gains] = 1, -1
    _, low, high, *_ = at_once(differences, np.full(500, 20))
    bound = stats.t.isf(0.025, 499)
    variance = max(500 * differences.var(ddof=1), losses + gains)
    size = variance / max(losses + gains, 1) if losses + gains else 1.0
    if losses + gains < 6:  # few units that differ: 0 is in the interval anyway
        assert low <= 0 <= high
        return

    def statistic(rate, more, fewer):
        """Of the null that there are so many more of one kind per word than of the other."""
        more, fewer, expected = more / size, fewer / size, rate * 10_000 / size

        def minus_log_likelihood(fewer_rate):
            more_rate = fewer_rate + expected
            return more_rate + fewer_rate - more * np.log(max(more_rate, 1e-300)) - fewer * np.log(fewer_rate)

        least = max(0.0, -expected)
        found = optimize.minimize_scalar(
            minus_log_likelihood, bounds=(least + 1e-12, least + 400), method="bounded", options={"xatol": 1e-9}
        ).x
        restricted = 2 * found + expected
        return (expected - (more - fewer)) / np.sqrt(max(restricted, more + fewer))

    assert statistic(high, losses, gains) == pytest.approx(bound, rel=1e-3)
    assert statistic(-low, gains, losses) == pytest.approx(bound, rel=1e-3)


# Few differences.


@pytest.mark.parametrize(("words", "tied"), [(760, False), (780, True)])
def test_without_a_difference_words_are_needed_until_a_loss_would_have_shown(words, tied):
    """Until t² = 3.865 losses were to be expected: 773 words. The rule of three has 600 (one-sided 5 %), here 738."""
    lengths = np.full(400, words / 400)
    low, high = at_once(np.zeros(400, dtype=int), lengths)[1:3]
    assert high == pytest.approx(stats.t.isf(0.025, 399) ** 2 / words)
    assert low == -high
    assert (high < MARGIN) is tied


def test_no_look_says_tied_before_a_loss_would_have_shown():
    """The corpus of `nano`: 400 utterances of seven words, of which none differs in the first looks."""
    sizes = np.arange(40, 401, 40)
    found = examine(seen(np.zeros(400, dtype=int), np.full(400, 7), None, sizes), TEN, Design(MARGIN))
    first = int(found.stops())
    assert found.verdict(first) == "tied"
    expected = MARGIN * 7 * sizes[first]  # losses, had they come one by one
    assert np.exp(-expected) < 0.0005


def test_a_few_large_losses_are_less_certain_than_many_small_ones():
    few, many = np.zeros(400, dtype=int), np.zeros(400, dtype=int)
    few[:2], many[:20] = 10, 1
    assert at_once(few, np.full(400, 20))[2] > at_once(many, np.full(400, 20))[2]


@pytest.mark.parametrize("units", [None, np.arange(300) % 30])
def test_p_is_at_least_that_of_a_sign_test_of_the_units_that_differ(units):
    differences = np.zeros(300, dtype=int)
    differences[:5] = 9
    found = at_once(differences, np.full(300, 20), units)
    assert 2 * stats.norm.sf(found[3]) >= 2.0**-4 * (1 - 1e-12)
    assert found[1] <= 0 < found[2]


def test_with_too_few_units_nothing_is_said():
    differences = np.full(200, 3)
    units = np.arange(200) % (MIN_UNITS - 1)
    difference, low, high, z, _, *said = at_once(differences, np.full(200, 20), units)
    assert (difference, low, high, z) == (0.15, -np.inf, np.inf, 0)
    assert not any(said)


# Invented text.


def test_a_model_that_is_lost_is_shown_to_be_although_it_loops():
    """Every third utterance loses two words; two of 300 loop, which hides it from a t test of all errors."""
    differences = np.tile([2, 0, 0], 100)
    differences[[50, 200]] = 440
    assert stats.ttest_1samp(differences, 0).pvalue > 0.05
    found = examine(seen(differences, np.full(300, 20), None, [150, 300]), [0.5, 1.0], Design(MARGIN, 60))
    assert found.worse.all()
    assert found.difference[1] == differences.sum() / 6000
    assert (found.low > 0.01).all()
    assert (found.high > 0.3).all()  # the loops count


def test_a_baseline_that_loops_is_no_proof_of_the_cell():
    differences = np.zeros(300, dtype=int)
    differences[[55, 205]], differences[::10] = -440, 1
    difference, low, high, _, *said = at_once(differences, np.full(300, 20))
    assert difference < -0.13
    assert low < -0.13
    assert high > 0
    assert not any(said[1:])


@given(st.lists(st.integers(-100, 100), min_size=12, max_size=40))
def test_better_is_worse_seen_from_the_baseline(differences):
    words = np.full(len(differences), 10)
    cell = at_once(np.array(differences), words)
    baseline = at_once(-np.array(differences), words)
    assert [cell[0], cell[1], cell[3]] == pytest.approx([-baseline[0], -baseline[2], -baseline[3]])
    assert cell[5:7] == baseline[6:4:-1]


# Several looks.


def test_each_look_sees_its_part_of_the_utterances():
    differences, words, units = corpus((3, 500))
    sizes = np.array([50, 120, 499])
    together = seen(differences, words, units, sizes)
    for row in range(3):
        for look, size in enumerate(sizes):
            alone = seen(differences[row, :size], words[row, :size], units[row, :size], [size])
            for name, whole, part in zip(together._fields, together, alone, strict=True):
                assert whole[..., row, look] == pytest.approx(part[..., 0]), name


def test_worse_is_when_the_repeated_interval_leaves_out_0_and_tied_when_it_is_below_the_margin():
    differences, words, units = corpus((200, 600), losing=0.06)
    design = Design(MARGIN, 1, "pocock", "pocock")
    found = examine(seen(differences, words, units, np.arange(60, 601, 60)), TEN, design)
    assert np.array_equal(found.worse, found.low > 0)
    assert np.array_equal(found.better, found.high < 0)
    assert np.array_equal(found.tied, found.high < MARGIN)


def test_a_cell_stops_at_the_first_answer():
    differences, words, units = corpus((600,), losing=0.12)
    found = examine(seen(differences, words, units, np.arange(60, 601, 60)), TEN, Design(MARGIN))
    first = int(found.stops())
    assert 0 < first < 9
    assert [found.verdict(look) for look in range(first + 1)] == [None] * first + ["worse"]


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("cells", [1, 60])
def test_a_repeated_p_value_is_the_level_at_which_a_look_so_far_just_rejects(cells, spending):
    z = np.array([0.3, 3.0, -4.1, 2.0, 3.5, 1.0, 0.0, -2.5, 2.2, 5.0])
    design = Design(MARGIN, cells, spending)  # of worse and better
    found = repeated_p(z, TEN, design)
    assert (np.diff(found) <= 0).all()

    def crosses(log_level, look):
        return (np.abs(z) - boundaries(TEN, np.exp(log_level), spending))[: look + 1].max()

    for look, p in enumerate(found):
        exact = np.exp(optimize.brentq(crosses, np.log(1e-14), np.log(0.99999), args=(look,))) if p < 0.999 else 1
        assert p == pytest.approx(exact, rel=0.02)


def test_p_is_at_most_alpha_of_the_grid_exactly_where_a_boundary_is_reached():
    design = Design(MARGIN, 36)
    bound = boundaries(TEN, ALPHA / 36, design.spending)
    for look in range(10):
        z = np.zeros((2, 10))
        z[:, look] = [bound[look] * (1 + 1e-9), bound[look] * (1 - 1e-9)]
        reached, not_reached = repeated_p(z, TEN, design)[:, -1]
        assert reached <= ALPHA / 36 < not_reached


def test_a_cell_that_stops_as_worse_is_worse_after_holm_whatever_the_others_are():
    bound = boundaries(TEN, ALPHA / 5, Design(MARGIN).spending)
    z = np.zeros(4)
    z[3] = bound[3] + 0.01
    p = repeated_p(z, TEN[:4], Design(MARGIN, 5))[-1]
    assert holm([1.0, p, 0.5, 0.9, 1.0])[1] < ALPHA


# Simulated corpora: errors of all looks together.


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("by_speaker", [True, False])
def test_false_answers_are_as_rare_as_said(spending, by_speaker):
    """2,000 corpora of 1,000 utterances: without a difference, and with one that is the margin exactly."""
    differences, words, units = corpus((2000, 1000))
    sizes, design = np.arange(100, 1001, 100), Design(MARGIN, 1, spending, spending)
    speakers = units if by_speaker else None
    information = np.cumsum(words, axis=1)[:, sizes - 1] / words.sum(axis=1, keepdims=True)
    found = examine(seen(differences, words, speakers, sizes), information, design)
    assert 0.025 < (found.worse | found.better).any(axis=1).mean() < 0.06  # 5 %, ± 0.5
    shifted = differences + np.random.default_rng(1).binomial(words, MARGIN)
    found = examine(seen(shifted, words, speakers, sizes), information, design)
    assert 0.005 < found.tied.any(axis=1).mean() < 0.035  # 2.5 %, ± 0.35


def test_beyond_the_margin_is_said_wrongly_in_at_most_2_5_percent_and_nothing_else_is_said():
    """The null is a difference that is the margin exactly."""
    differences, words, units = corpus((2000, 1000))
    sizes, design = np.arange(100, 1001, 100), Design(0.02, 40, stops="beyond")
    shifted = differences + np.random.default_rng(1).binomial(words, 0.02)
    found = examine(seen(shifted, words, units, sizes), TEN, design)
    assert 0.005 < found.worse.any(axis=1).mean() < 0.035
    assert not (found.better | found.tied).any()
    lost = examine(seen(shifted + (words > 18), words, units, sizes), TEN, design)  # more than 2 points more
    assert lost.worse[:, :5].any(axis=1).mean() > 0.99
    small = examine(
        seen(differences + (words > 30), words, units, sizes), TEN, design
    )  # worse, by less than the margin
    assert not small.worse.any()
    assert (
        examine(seen(differences + (words > 30), words, units, sizes), TEN, Design(0.02)).worse.any(axis=1).mean() > 0.5
    )


def test_speakers_who_differ_do_not_make_it_wrong_more_often():
    """Each speaker's rate of loss is its own, so that estimates of all looks share it."""
    chance = np.random.default_rng(3)
    speakers, corpora = 30, 2000
    own = np.clip(chance.normal(0, 0.02, size=(corpora, speakers)), -0.05, 0.05)
    units = np.broadcast_to(np.arange(600) % speakers, (corpora, 600))
    words = np.full((corpora, 600), 20)
    rate = np.take_along_axis(own, units, axis=1)
    differences = chance.binomial(words, 0.06 + rate) - chance.binomial(words, 0.06)
    sizes = np.arange(60, 601, 60)
    found = examine(seen(differences, words, units, sizes), TEN, Design(MARGIN))
    assert (found.worse | found.better).any(axis=1).mean() < 0.06
    without = examine(seen(differences, words, None, sizes), TEN, Design(MARGIN))
    assert (without.worse | without.better).any(axis=1).mean() > 0.12
