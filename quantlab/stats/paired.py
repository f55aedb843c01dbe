"""Paired comparison with the baseline: MAPSSWE test, Holm's correction, verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Verdict = Literal["better", "tied", "worse", "underpowered"]

ALPHA = 0.05


class Mapsswe(NamedTuple):
    """Outcome of the matched-pairs test."""

    z: float  # positive: the first system makes more errors; infinite if all segments have the same difference
    p: float  # two-sided


def mapsswe(errors: npt.ArrayLike, baseline_errors: npt.ArrayLike) -> Mapsswe | None:
    """Matched-pairs sentence-segment word error test.

    Source: Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms" (ICASSP
    1989), section 4: W = mean difference of errors per segment / (its standard deviation / √n), standard normal
    under the null. They cut continuous speech where both systems are correct for two words or more, so that segments
    are independent. Here every utterance is decoded separately, so it is a segment.

    Args:
        errors: S + D + I of each utterance.
        baseline_errors: S + D + I of each utterance for the baseline.

    Returns:
        None for fewer than two utterances.
    """
    differences = np.asarray(errors, dtype=np.float64) - np.asarray(baseline_errors, dtype=np.float64)
    if len(differences) < 2:
        return None
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if mean == 0:
        return Mapsswe(0.0, 1.0)
    if deviation == 0:
        return Mapsswe(math.copysign(math.inf, mean), 0.0)
    z = mean / (deviation / math.sqrt(len(differences)))
    return Mapsswe(z, math.erfc(abs(z) / math.sqrt(2)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple testing, in the given order.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979): the k-th smallest of m is
    multiplied by m − k + 1, and none may be smaller than the one before.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def verdict(difference: float, p_holm: float, high: float | None, margin: float) -> Verdict:
    """The verdict on the error rate of a cell against its baseline.

    Args:
        difference: cell − baseline.
        p_holm: see `holm`.
        high: upper end of the difference's 95 % interval; None without an interval.
        margin: non-inferiority margin, in the unit of `difference`.
    """
    if p_holm < ALPHA and difference != 0:
        return "better" if difference < 0 else "worse"
    return "tied" if noninferior(high, margin) else "underpowered"


def noninferior(high: float | None, margin: float) -> bool:
    """Whether the cell is shown to be worse by less than the margin."""
    return high is not None and high < margin
