"""The order of measurement: deterministic, random, balanced in every prefix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.data.calibration import _rank
from quantlab.data.order import balanced_order, look_sizes

GROUPS = st.dictionaries(
    st.tuples(st.sampled_from(["clean", "other", "third"]), st.sampled_from([None, "", "s1", "s2", "s3", "s4"])),
    st.integers(1, 40),
    min_size=1,
)


def corpus(sizes):
    """Ids, splits and speakers of a corpus with so many utterances of each split and speaker."""
    rows = [(split, speaker) for (split, speaker), count in sizes.items() for _ in range(count)]
    return [f"u{number}" for number in range(len(rows))], [row[0] for row in rows], [row[1] for row in rows]


def furthest(order, labels):
    """The most by which a prefix has more or fewer of a label than its share, by label."""
    labels = np.array(labels)[order]
    seen = np.arange(1, len(order) + 1) / len(order)
    return {label: np.abs(np.cumsum(labels == label) - seen * (labels == label).sum()).max() for label in set(labels)}


@given(GROUPS, st.integers(0, 99))
def test_every_prefix_has_each_split_and_speaker_in_its_share(sizes, seed):
    ids, splits, speakers = corpus(sizes)
    order = balanced_order(seed, ids, splits, speakers)
    assert sorted(order) == list(range(len(ids)))
    assert max(furthest(order, splits).values()) <= 1.5
    pairs = [f"{split} {speaker!r}" for split, speaker in zip(splits, speakers, strict=True)]
    assert max(furthest(order, pairs).values()) <= 2.5


def test_a_corpus_like_librispeech():
    counts = np.random.default_rng(0).integers(40, 110, size=40)
    ids, splits, speakers = corpus({("clean", f"s{number}"): count for number, count in enumerate(counts)})
    order = balanced_order(0, ids, splits, speakers)
    assert max(furthest(order, speakers).values()) <= 1.5
    assert len({speakers[index] for index in order[:40]}) >= 35  # nearly all speak in the first 40


@given(GROUPS, st.randoms(use_true_random=False))
def test_it_does_not_depend_on_the_order_of_the_input(sizes, chance):
    rows = list(zip(*corpus(sizes), strict=True))
    shuffled = chance.sample(rows, len(rows))
    found = [[some[index][0] for index in balanced_order(3, *zip(*some, strict=True))] for some in (rows, shuffled)]
    assert found[0] == found[1]


def test_another_seed_is_another_order_and_every_utterance_may_come_first():
    ids, splits, speakers = corpus({("clean", "s1"): 4, ("clean", "s2"): 4})
    orders = [tuple(balanced_order(seed, ids, splits, speakers)) for seed in range(400)]
    assert len(set(orders)) > 200
    first = np.bincount([order[0] for order in orders], minlength=8)
    assert first.min() > 25  # 50 expected, standard deviation 6.6


def test_it_does_not_begin_with_what_the_same_seed_calibrates_with():
    """Else the first looks would be at the utterances that the activations' scales were set on."""
    ids, splits, speakers = corpus({("clean", None): 1000})
    shared = [
        len({ids[index] for index in balanced_order(seed, ids, splits, speakers)[:100]} & set(calibrated))
        for seed in range(20)
        for calibrated in [sorted(ids, key=lambda id, seed=seed: _rank(seed, id))[:100]]
    ]
    assert 6 < np.mean(shared) < 14  # 10 by chance


@pytest.mark.parametrize(
    ("utterances", "looks", "expected"),
    [(20, 4, [5, 10, 15, 20]), (7, 3, [3, 5, 7]), (3, 10, [1, 2, 3]), (1, 1, [1])],
)
def test_looks_are_evenly_spread_and_the_last_sees_all(utterances, looks, expected):
    assert look_sizes(utterances, looks) == expected
