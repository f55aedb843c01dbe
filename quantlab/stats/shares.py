"""Intervals of shares, and paired differences of rare events, where utterances of a speaker belong together.

The bootstrap fails for events that are rare: resamples of none are all none. A share has Wilson's score interval with
the effective sample size instead, the number of independent utterances that would vary as much (Korn and Graubard,
Survey Methodology 24:193, 1998; Wilson's interval in place of the exact one: Dean and Pagano, Journal of Survey
Statistics and Methodology 3:484, 2015). The paired test exchanges cell and reference at random, all utterances of a
speaker at once; with utterances as units and at most one event in each, that is McNemar's exact test.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from quantlab.stats.bootstrap import Floats, Units
from quantlab.stats.estimate import Estimate

Ints = npt.NDArray[np.int64]

_Z95 = NormalDist().inv_cdf(0.975)
_EXACT = 100_000  # largest sum of differences whose distribution is computed; above, it is taken as normal
_ROUNDING = 1e-9  # relative; of a sum of probabilities


def share(found: npt.ArrayLike, of: npt.ArrayLike, units: Units) -> Estimate | None:
    """A share over all utterances with its 95 % interval; no interval from too few units, None of nothing.

    Where it is 0 or 1, nothing is known of the variation between units, and utterances count as independent: none of n
    has an upper end of 3.84 / (n + 3.84).

    Args:
        found: (utterances,): number of events.
        of: (utterances,): number of cases, each an event or not.
        units: units of the utterances.
    """
    events, cases = _by_unit(found, units), _by_unit(of, units)
    total = float(cases.sum())
    if not total:
        return None
    value = float(events.sum()) / total
    if not units.enough:
        return Estimate(value)
    return Estimate(value, _wilson(value, _effective(events, cases, value)))


def _by_unit(counts: npt.ArrayLike, units: Units) -> Floats:
    return np.bincount(units.of_utterance, np.asarray(counts, np.float64), units.count).astype(np.float64, copy=False)


def _effective(events: Floats, cases: Floats, value: float) -> float:
    """Number of independent cases that would vary as much as these units, for a quantile of their t distribution."""
    total, count = float(cases.sum()), len(cases)
    residuals = events - value * cases
    variance = count / (count - 1) * float(residuals @ residuals) / total**2  # linearised, of a ratio of sums
    if not 0 < value < 1 or not variance:
        return total
    fewer = (_Z95 / float(stdtrit(count - 1, 0.975))) ** 2
    return min(total, value * (1 - value) / variance * fewer)


def _wilson(value: float, cases: float) -> tuple[float, float]:
    """Wilson, Journal of the American Statistical Association 22:209 (1927)."""
    square = _Z95**2
    centre = (value + square / (2 * cases)) / (1 + square / cases)
    half = _Z95 / (1 + square / cases) * math.sqrt(value * (1 - value) / cases + square / (4 * cases**2))
    low = 0.0 if value == 0 else max(0.0, centre - half)
    high = 1.0 if value == 1 else min(1.0, centre + half)
    return low, high


def swapped_p(differences: npt.ArrayLike, units: Units) -> float:
    """Two-sided p of "no difference" of two systems, from exchanging them in each unit at random.

    Args:
        differences: (utterances,), whole numbers: events of the cell − those of the reference.
        units: units of the utterances.
    """
    of_unit = np.rint(_by_unit(differences, units)).astype(np.int64)
    sizes = np.abs(of_unit[of_unit != 0])
    observed = abs(int(of_unit.sum()))
    if not observed:
        return 1.0
    if int(sizes.sum()) * len(sizes) > _EXACT:
        return math.erfc(observed / math.sqrt(2 * float((sizes.astype(np.float64) ** 2).sum())))
    return min(1.0, 2 * _upper_tail(sizes, observed))


def _upper_tail(sizes: Ints, observed: int) -> float:
    """Probability that the sum of ±sizes, signs at random, is at least `observed`, above 0."""
    total = int(sizes.sum())
    chances = np.zeros(total + 1)  # of each sum of the sizes with a plus
    chances[0] = 1.0
    for size in sizes.tolist():
        shifted = np.zeros_like(chances)
        shifted[size:] = chances[: len(chances) - size]
        chances = (chances + shifted) / 2
    least = -(-(total + observed) // 2)  # plus − (total − plus) ≥ observed
    return float(chances[least:].sum()) * (1 + _ROUNDING)
