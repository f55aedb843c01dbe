"""Ratio of two times from interleaved calls: estimate, convergence, verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

MIN_BLOCKS = 8  # fewer give an interval that is itself a matter of luck
CALM = 0.75  # of the blocks, those that were disturbed least
TRIMMED = 0.2  # of these at either end, left out of the mean
CONFIDENCE = 0.95

Times = npt.NDArray[np.float64]
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


def typical_ratio(numerators: npt.ArrayLike, denominators: npt.ArrayLike) -> Ratio:
    """The ratio of two times in a typical block, with Student's t interval.

    Whatever disturbs a call makes it slower, so of a side's calls in a block the fastest counts. On a busy machine some
    blocks are disturbed all the same and an ordinary mean follows them. Those whose sides disagree most with themselves
    are left out first, which looks at no difference between the sides; of the rest the geometric mean is trimmed.
    Source of the trimmed mean and its interval: Tukey and McLaughlin 1963; Yuen 1974, Biometrika 61. From one block the
    interval is everything there is, (0, ∞).

    Args:
        numerators: seconds, (blocks, calls). Blocks are independent of each other, what is in a block need not be.
        denominators: seconds, (blocks, calls).
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    logs = np.sort(np.log(above.min(axis=1) / below.min(axis=1))[_calm(above, below)])
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


def _calm(above: Times, below: Times) -> npt.NDArray[np.intp]:
    """The blocks in which each side agrees best with itself, `CALM` of them; all where there are few."""
    count = len(above)
    if count < MIN_BLOCKS:
        return np.arange(count)
    spread = sum(np.log(times.max(axis=1) / times.min(axis=1)) for times in (above, below))
    return np.argsort(spread, kind="stable")[: math.ceil(CALM * count)]


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
