"""Boundaries of group sequential tests against published tables, exact integrals and simulation."""

import numpy as np
import pytest
from scipy import stats

from quantlab.stats.spending import boundaries

FIVE, TEN = np.arange(1, 6) / 5, np.arange(1, 11) / 10
# Two-sided 5 %, five equal looks: Jennison and Turnbull 2000; the same as gsDesign's sfLDOF and sfLDPocock print.
PUBLISHED = {
    "obrien_fleming": [4.8769, 3.3569, 2.6803, 2.2898, 2.0310],
    "pocock": [2.4380, 2.4268, 2.4101, 2.3966, 2.3859],
}


@pytest.mark.parametrize("spending", PUBLISHED)
def test_published_boundaries(spending):
    assert boundaries(FIVE, 0.05, spending) == pytest.approx(PUBLISHED[spending], abs=2e-4)


def test_one_side_of_a_test_at_10_percent_is_the_published_one_sided_one_at_5():
    """Of four looks, as PharmCat/SeqBounds.jl prints it."""
    found = boundaries([0.25, 0.5, 0.75, 1], 0.1, "obrien_fleming")
    assert found == pytest.approx([3.74955, 2.53993, 2.01604, 1.72014], abs=5e-4)


@pytest.mark.parametrize("spending", PUBLISHED)
@pytest.mark.parametrize("information", [[0.3, 1], [0.1, 0.15], [0.5, 0.9]])
def test_two_looks_spend_what_the_bivariate_normal_says(spending, information):
    first, second = boundaries(information, 0.05, spending)
    correlation = np.sqrt(information[0] / information[1])
    both = stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]])
    inside = both.cdf([first, second], lower_limit=[-first, -second])
    spent = {
        "obrien_fleming": lambda t: 4 * stats.norm.sf(stats.norm.ppf(1 - 0.0125) / np.sqrt(t)),
        "pocock": lambda t: 0.05 * np.log(1 + (np.e - 1) * t),
    }[spending](information[1])
    assert 1 - inside == pytest.approx(spent, abs=2e-7)


def test_a_single_look_at_everything_is_the_ordinary_test():
    for spending in PUBLISHED:
        assert boundaries([1.0], [0.05, 0.01], spending)[:, 0] == pytest.approx(stats.norm.isf([0.025, 0.005]))


@pytest.mark.parametrize("spending", PUBLISHED)
@pytest.mark.parametrize("information", [TEN, [0.02, 0.3, 0.31, 0.9, 1]], ids=["even", "uneven"])
def test_brownian_motion_crosses_as_often_as_is_spent(spending, information):
    information = np.asarray(information)
    steps = np.sqrt(np.diff(information, prepend=0.0))
    paths = np.cumsum(np.random.default_rng(0).normal(size=(400_000, len(steps))) * steps, axis=1)
    z = paths / np.sqrt(information)
    bound = boundaries(information, 0.05, spending)
    error = np.sqrt(0.05 * 0.95 / len(paths))
    assert (np.abs(z) >= bound).any(axis=1).mean() == pytest.approx(0.05, abs=4 * error)
    assert (z >= bound).any(axis=1).mean() == pytest.approx(0.025, abs=4 * error)  # one side, for "tied"


def test_tests_of_one_call_are_those_of_single_calls():
    shares = np.array([[0.1, 0.5, 1], [0.2, 0.3, 0.4]])
    levels = np.array([0.05, 1e-4])
    together = boundaries(shares, levels, "obrien_fleming")
    apart = [boundaries(share, level, "obrien_fleming") for share, level in zip(shares, levels, strict=True)]
    assert together == pytest.approx(np.array(apart), abs=1e-8)


@pytest.mark.parametrize("spending", PUBLISHED)
def test_boundaries_of_stricter_levels_are_further_out_at_every_look(spending):
    """On which repeated p-values rest."""
    levels = np.exp(np.linspace(np.log(1e-15), np.log(0.9999), 60))
    found = boundaries(np.tile(TEN, (60, 1)), levels, spending)
    assert (np.diff(found, axis=0) < 0).all()


def test_a_look_at_which_nothing_is_spent_has_no_boundary():
    first, last = boundaries([0.001, 1.0], 0.05, "obrien_fleming")
    assert first == np.inf
    assert last == pytest.approx(stats.norm.isf(0.025), abs=1e-6)


@pytest.mark.parametrize("information", [[0.5, 0.5], [0.5, 0.4], [0.0, 1.0], [0.5, 1.1], [np.nan, 1.0]])
def test_shares_that_do_not_increase_up_to_1_are_refused(information):
    with pytest.raises(ValueError, match="each larger than the one before"):
        boundaries(information, 0.05, "pocock")
