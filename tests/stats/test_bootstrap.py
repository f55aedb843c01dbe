import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from quantlab.stats.bootstrap import (
    _draws,
    choose_units,
    interval,
    minimum_detectable,
    p_value,
    resampled_sums,
)

RESAMPLES = 10_000


def corpus(utterances, seed=0, speakers=20, effect=0.0):
    """Errors of a baseline and of a cell, and reference words; speakers differ in how hard they are."""
    chance = np.random.default_rng(seed)
    speaker = chance.integers(speakers, size=utterances)
    hard = chance.gamma(2, 0.05, size=speakers)[speaker]
    words = chance.integers(3, 30, size=utterances)
    baseline = chance.binomial(words, hard)
    cell = np.clip(baseline + chance.binomial(words, 0.02 + effect) - chance.binomial(words, 0.02), 0, None)
    return cell, baseline, words, speaker


def by_utterance(count):
    return choose_units(["test"] * count, [None] * count)


def differences(cell, baseline, words, units, resamples=RESAMPLES):
    columns = np.stack([cell - baseline, words], axis=1).astype(float)
    errors, lengths = resampled_sums(units, columns[:, None], resamples)[0]
    return errors / lengths


def test_agrees_with_scipy_on_a_ratio_of_sums():
    cell, baseline, words, _ = corpus(300, effect=0.01)
    mine = differences(cell, baseline, words, by_utterance(300))
    theirs = stats.bootstrap(
        (cell, baseline, words),
        lambda a, b, n, axis: (a.sum(axis) - b.sum(axis)) / n.sum(axis),
        n_resamples=RESAMPLES, paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(1),
    )  # fmt: skip
    sampling = theirs.standard_error / 25  # of a 2.5 % quantile of 10,000 resamples: 0.027 of the deviation
    assert mine.std(ddof=1) == pytest.approx(theirs.standard_error, rel=0.03)
    assert interval(mine) == pytest.approx(np.array(theirs.confidence_interval), abs=4 * sampling)


def test_by_speaker_agrees_with_scipy_over_speakers():
    cell, baseline, words, speaker = corpus(400, effect=0.01)
    units = choose_units(["test"] * 400, [f"s{number}" for number in speaker])
    assert (units.kind, units.count) == ("speaker", 20)
    totals = [np.bincount(speaker, counts) for counts in (cell, baseline, words)]
    theirs = stats.bootstrap(
        totals,
        lambda a, b, n, axis: (a.sum(axis) - b.sum(axis)) / n.sum(axis),
        n_resamples=RESAMPLES, paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(1),
    )  # fmt: skip
    mine = differences(cell, baseline, words, units)
    assert mine.std(ddof=1) == pytest.approx(theirs.standard_error, rel=0.03)
    assert interval(mine) == pytest.approx(np.array(theirs.confidence_interval), abs=theirs.standard_error / 6)


def test_a_speaker_in_two_splits_is_one_unit_and_ties_them_together():
    units = choose_units(
        ["a", "a", "b", "b", "c", *["c"] * 8], ["s1", "s2", "s2", "s3", "s4", *[f"t{i}" for i in range(8)]]
    )
    assert units.kind == "speaker"
    assert units.strata == (3, 9)
    assert units.of_utterance.tolist()[:5] == [0, 1, 1, 2, 3]


def test_splits_tied_by_way_of_a_third_are_one_stratum():
    speakers = ["s1", "s2", "s1", "s2", *[f"s{i}" for i in range(3, 12)]]
    assert choose_units(["a", "b", "c", "c", *["d"] * 9], speakers).strata == (2, 9)


@pytest.mark.parametrize(
    "speakers",
    [[None] * 24, [f"s{i % 9}" for i in range(24)], [None, *[f"s{i}" for i in range(23)]]],
    ids=["unknown", "too few", "one unknown"],
)
def test_without_enough_known_speakers_utterances_are_drawn_within_their_split(speakers):
    units = choose_units(["clean", "other"] * 12, speakers)
    assert (units.kind, units.strata) == ("utterance", (12, 12))
    assert sorted(units.of_utterance) == list(range(24))


def test_every_stratum_keeps_its_size_in_every_resample():
    weights = np.concatenate(list(_draws((3, 7), 1000)))
    assert weights.shape == (1000, 10)
    assert set(weights[:, :3].sum(axis=1)) == {3}
    assert set(weights[:, 3:].sum(axis=1)) == {7}


def test_weights_are_multinomial():
    weights = np.concatenate(list(_draws((400,), RESAMPLES)))
    assert weights.mean(axis=0) == pytest.approx(np.ones(400), abs=0.05)
    assert weights.var() == pytest.approx(1 - 1 / 400, rel=0.01)
    observed = np.bincount(weights.astype(int).ravel(), minlength=10)[:8] / weights.size
    assert observed == pytest.approx(stats.binom.pmf(range(8), 400, 1 / 400), abs=2e-3)


def test_pieces_of_a_large_corpus_make_up_all_resamples():
    pieces = list(_draws((40_000,), 7))
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    assert not np.array_equal(pieces[0], pieces[1])


def test_sums_of_separate_calls_are_paired():
    cell, baseline, *_ = corpus(100)
    units = by_utterance(100)
    together = resampled_sums(units, np.stack([cell, baseline], axis=1).astype(float)[:, None], 1000)[0]
    assert np.array_equal(resampled_sums(units, baseline[:, None, None].astype(float), 1000)[0, 0], together[1])


def test_groups_that_are_zero_elsewhere_sum_as_the_whole_does():
    counts = np.arange(24.0)
    groups = np.zeros((24, 3, 1))
    groups[:7, 0, 0], groups[7:, 1, 0] = counts[:7], counts[7:]
    units = by_utterance(24)
    parts = resampled_sums(units, groups, 1000)[:, 0]
    assert np.array_equal(parts[:-1].sum(axis=0), resampled_sums(units, counts[:, None, None], 1000)[0, 0])
    assert np.array_equal(parts[:-1].sum(axis=0), parts[-1])
    assert not parts[2].any()


# By hand.


def test_identical_hypotheses_have_no_difference():
    samples = differences(np.arange(20), np.arange(20), np.full(20, 8), by_utterance(20))
    assert interval(samples).tolist() == [0, 0]
    assert p_value(samples, 0.0, 20) == 1
    assert minimum_detectable(samples) == 0


def test_a_constant_difference_has_no_width_and_the_p_of_a_sign_test():
    samples = differences(np.full(12, 3), np.full(12, 1), np.full(12, 8), by_utterance(12))
    assert interval(samples).tolist() == [0.25, 0.25]
    assert p_value(samples, 0.25, 12) == 2.0**-11


def test_a_single_utterance_is_not_enough():
    units = by_utterance(1)
    assert not units.enough
    assert p_value(differences(np.array([3]), np.array([1]), np.array([8]), units), 0.25, 1) == 1


def test_utterances_without_words_add_errors_only():
    samples = differences(np.ones(20), np.zeros(20), np.array([10, 0] * 10), by_utterance(20), 1000)
    assert np.isfinite(interval(samples)).all()
    assert np.median(samples) == pytest.approx(20 / 100, rel=0.2)


def test_a_resample_without_reference_words_leaves_no_interval():
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = differences(np.ones(12), np.zeros(12), np.array([5] + [0] * 11), by_utterance(12), 1000)
    assert np.isnan(interval(samples)).all()


def test_the_interval_takes_the_250th_of_10_000_from_either_end():
    samples = np.random.default_rng(0).permutation(RESAMPLES).astype(float)
    assert interval(samples).tolist() == [249, 9750]


@pytest.mark.parametrize("resamples", [1000, 1001, 9999, 10_000])
@pytest.mark.parametrize("order", ["drawn", "sorted", "tied", "constant", "periodic"])
def test_the_interval_is_the_one_of_sorted_resamples(resamples, order):
    """Also where every 16th resample, which the tails are found by, tells nothing about the others."""
    samples = np.random.default_rng(0).normal(size=(2, 3, resamples))
    if order == "periodic":
        samples[..., ::16] += 100
    samples = {"sorted": np.sort(samples), "tied": samples.round(), "constant": samples * 0}.get(order, samples)
    place = resamples // 40 - 1
    expected = np.sort(samples)[..., [place, -1 - place]]
    assert np.array_equal(interval(samples), expected)


def test_p_by_hand():
    samples = np.concatenate([np.full(99, -1.0), np.full(9901, 1.0)])
    assert p_value(samples, 0.98, 400) == 2 * 100 / 10_001
    beyond = np.random.default_rng(0).normal(6, 1, RESAMPLES)
    assert p_value(beyond, 6.0, 400) == pytest.approx(2 * stats.norm.sf(6 / beyond.std(ddof=1)))


@settings(max_examples=300, deadline=None)
@given(st.integers(1000, 12_000), st.integers(0, 700), st.booleans())
def test_p_is_below_5_percent_exactly_when_the_interval_leaves_0_out(resamples, far, positive):
    samples = np.ones(resamples)
    samples[: min(far, resamples)] = -1
    samples = samples if positive else -samples
    low, high = interval(samples)
    assert (p_value(samples, samples.mean(), 400) < 0.05) == (low > 0 or high < 0)


def test_the_minimum_detectable_effect_is_found_in_80_percent():
    """The power of a z test at that effect, from scipy: 2.8 standard deviations."""
    samples = np.random.default_rng(0).normal(0, 1, RESAMPLES)
    effect = minimum_detectable(samples) / samples.std(ddof=1)
    assert stats.norm.sf(stats.norm.ppf(0.975) - effect) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("kind", ["utterance", "speaker"])
def test_the_interval_covers_and_the_test_is_wrong_as_often_as_it_says(kind):
    """400 corpora of 200 utterances by 40 speakers, without a true difference."""
    truth, wrong = 0.0, 0
    for seed in range(400):
        chance = np.random.default_rng([seed, 7])
        speakers = np.arange(200) % 40
        words = chance.integers(3, 30, size=200)
        shared = chance.normal(0, 0.02, size=40)[speakers] if kind == "speaker" else 0.0
        difference = chance.binomial(words, np.clip(0.1 + shared, 0, 1)) - chance.binomial(words, 0.1)
        names = [f"s{number}" for number in speakers] if kind == "speaker" else [None] * 200
        units = choose_units(["test"] * 200, names)
        low, high = interval(differences(difference, 0, words, units, 1000))
        wrong += not low <= truth <= high
    assert 0.02 < wrong / 400 < 0.10  # 5 %, and what chance and a percentile interval of 40 units add


def test_drawn_by_utterance_where_speakers_matter_it_would_be_wrong_far_more_often():
    wrong = 0
    for seed in range(200):
        chance = np.random.default_rng([seed, 8])
        words = np.full(200, 20)
        shared = np.repeat(chance.normal(0, 0.05, size=20), 10)
        difference = chance.binomial(words, 0.2 + np.clip(shared, -0.2, 0.2)) - chance.binomial(words, 0.2)
        low, high = interval(differences(difference, 0, words, by_utterance(200), 1000))
        wrong += not low <= 0 <= high
    assert wrong / 200 > 0.15
