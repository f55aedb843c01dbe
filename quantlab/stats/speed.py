"""The ratio of two times, from calls that took turns; when it is known well enough, and what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit

MIN_BLOCKS = 8  # fewer give an interval that is itself a matter of luck
TRIMMED = 0.2  # of the blocks at either end, left out of the mean
CONFIDENCE = 0.95

SpeedVerdict = Literal["faster", "slower", "no difference", "not converged"]


class Ratio(NamedTuple):
    """A ratio with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Of the interval, relative to the ratio."""
        return (self.high - self.low) / self.value


def typical_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """The trimmed geometric mean of the ratios of pairs, with Student's t interval.

    On a busy machine a few calls take several times as long as the others, and an ordinary mean follows them: leaving
    out a fifth of the ratios at either end made the interval a third as wide. Source: Tukey and McLaughlin 1963;
    Yuen 1974, Biometrika 61. With one pair the interval is everything there is, (0, ∞).

    Args:
        numerators: positive, one a pair; pairs are independent of each other, the two of a pair need not be.
        denominators: positive, one a pair.
    """
    logs = np.sort(np.log(numerators) - np.log(denominators))
    count = len(logs)
    trimmed = int(TRIMMED * count)
    kept = count - 2 * trimmed
    value = math.exp(logs[trimmed : count - trimmed].mean())
    if count < 2:
        return Ratio(value, 0.0, math.inf)
    winsorised = np.clip(logs, logs[trimmed], logs[count - trimmed - 1])
    variance = float(winsorised.var(ddof=1))
    error = math.sqrt((count - 1) * variance / (kept * (kept - 1)))
    half = _t_quantile(kept - 1) * error
    return Ratio(value, value * math.exp(-half), value * math.exp(half))


def ratio_of_sums(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Σ numerators / Σ denominators, with Student's t interval for a ratio (Cochran 1977, section 2.11).

    Args:
        numerators: positive, one a pair; pairs are independent of each other.
        denominators: positive, one a pair; at least two pairs.
    """
    above, below = np.asarray(numerators), np.asarray(denominators)
    total = float(below.sum())
    value = float(above.sum()) / total
    error = math.sqrt(len(above)) * float(np.std(above - value * below, ddof=1)) / total
    half = _t_quantile(len(above) - 1) * error
    return Ratio(value, max(0.0, value - half), value + half)


def _t_quantile(freedom: int) -> float:
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def converged(ratio: Ratio, blocks: int, rel_ci: float) -> bool:
    """Whether to stop measuring: the interval is narrower than `rel_ci` of the ratio."""
    return blocks >= MIN_BLOCKS and ratio.width < rel_ci


def verdict(ratio: Ratio, blocks: int, rel_ci: float) -> SpeedVerdict:
    """One word for the time of a cell against its baseline.

    A difference is one when the interval leaves 1 out and the ratio is more than `rel_ci` away from 1: two copies of
    the same model, elsewhere in memory, can differ by some tenths of a per cent. It may be shown by an interval that
    is still wide; that there is none, only by a narrow one.
    """
    if blocks >= MIN_BLOCKS and ratio.high < 1 and ratio.value < 1 - rel_ci:
        return "faster"
    if blocks >= MIN_BLOCKS and ratio.low > 1 and ratio.value > 1 + rel_ci:
        return "slower"
    return "no difference" if converged(ratio, blocks, rel_ci) else "not converged"
