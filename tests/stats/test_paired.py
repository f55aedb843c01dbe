import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quantlab.stats.paired import holm, mapsswe, noninferior, verdict

COUNTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=50)


@given(COUNTS)
def test_the_matched_pairs_statistic_is_scipy_s_paired_t_read_as_normal(pairs):
    cell, baseline = map(np.array, zip(*pairs, strict=True))
    found = mapsswe(cell, baseline)
    if len(set((cell - baseline).tolist())) == 1:
        assert abs(found.z) in (0, math.inf)
        return
    expected = stats.ttest_rel(cell, baseline).statistic
    assert found.z == pytest.approx(expected, abs=1e-12)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(expected)), abs=1e-12)


def test_matched_pairs_by_hand():
    # differences 1, 0, 0, 1: mean 1/2, variance 1/3, so W = 0.5 / sqrt(1/12) = sqrt(3)
    assert mapsswe([1, 2, 0, 1], [0, 2, 0, 0]).z == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize(
    ("cell", "baseline", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], (0, 1)),
        ([2, 3], [1, 2], (math.inf, 0)),
        ([1, 1], [2, 2], (-math.inf, 0)),
        ([5], [1], None),
        ([], [], None),
    ],
)
def test_matched_pairs_where_there_is_no_variance(cell, baseline, expected):
    assert mapsswe(cell, baseline) == expected


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4×.005, 3×.01, 2×.03; .04 not below .06
        ([0.5, 0.6, 0.7], [1, 1, 1]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_by_hand(p_values, expected):
    assert holm(p_values) == pytest.approx(expected)


# Not st.floats: a quantization library tested before sets the processor to flush subnormals, which it refuses.
@given(st.lists(st.integers(0, 10_000).map(lambda ten_thousandths: ten_thousandths / 10_000), min_size=1, max_size=20))
def test_holm_rejects_what_its_steps_reject(p_values):
    """As Holm wrote it: step down from the smallest, stop at the first that is not below alpha / (m - k)."""
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if (len(p_values) - rank) * p_values[index] >= 0.05:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p < 0.05} == rejected


@pytest.mark.parametrize(
    ("difference", "p", "high", "word"),
    [
        (0.02, 0.01, 0.03, "worse"),
        (-0.02, 0.01, -0.01, "better"),
        (0.001, 0.6, 0.004, "tied"),
        (0.001, 0.6, 0.006, "underpowered"),
        (0.0, 1.0, 0.0, "tied"),
        (0.1, 1.0, None, "underpowered"),
        (0.004, 0.001, 0.0045, "worse"),  # shown to be worse, if by little
        (0.004, 0.05, 0.005, "underpowered"),
    ],
)
def test_one_word(difference, p, high, word):
    assert verdict(difference, p, high, margin=0.005) == word


def test_noninferior_needs_an_interval():
    assert noninferior(0.0049, 0.005)
    assert not noninferior(0.005, 0.005)
    assert not noninferior(None, 0.005)
