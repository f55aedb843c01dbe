"""Ratio of two times from interleaved calls: estimate, convergence, verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

MIN_BLOCKS = 8  # with fewer, the width of the interval is itself random
CALM = 0.75  # share of blocks to keep: the least disturbed ones
TRIMMED = 0.2  # share of these trimmed from either end of the mean
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
        """Width of the interval relative to the ratio."""
        return (self.high - self.low) / self.value


def typical_ratio(numerators: npt.ArrayLike, denominators: npt.ArrayLike) -> Ratio:
    """The ratio of two times in a typical block, with Student's t interval.

    Disturbances only make calls slower, so the fastest call of each side in a block counts. On a busy machine some
    blocks are still disturbed and would bias an ordinary mean. Blocks with the largest spread within a side are dropped
    first, a criterion that ignores the difference between the sides; the geometric mean of the rest is trimmed.
    Source of the trimmed mean and its interval: Tukey and McLaughlin 1963; Yuen 1974, Biometrika 61. From one block the
    interval is (0, ∞).

    Args:
        numerators: seconds, (blocks, calls). Blocks are independent of each other; calls within a block need not be.
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
    """The share `CALM` of blocks with the least spread within each side; all if there are few."""
    count = len(above)
    if count < MIN_BLOCKS:
        return np.arange(count)
    spread = sum(np.log(times.max(axis=1) / times.min(axis=1)) for times in (above, below))
    return np.argsort(spread, kind="stable")[: math.ceil(CALM * count)]


def ratio_of_sums(numerators: Sequence[float], denominators: Sequence[float]) -> Ratio:
    """Σ numerators / Σ denominators, with Student's t interval for a ratio (Cochran 1977, section 2.11).

    Args:
        numerators: positive, one per pair; pairs are independent of each other.
        denominators: positive, one per pair; at least two pairs.
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
    """The verdict on the time of a cell against its baseline.

    There is a difference if the interval excludes 1 and the ratio is more than `rel_ci` away from 1: two copies of the
    same model at different addresses can differ by some tenths of a per cent. A wide interval may show a difference,
    but only a narrow one can show that there is none.
    """
    if blocks >= MIN_BLOCKS and ratio.high < 1 and ratio.value < 1 - rel_ci:
        return "faster"
    if blocks >= MIN_BLOCKS and ratio.low > 1 and ratio.value > 1 + rel_ci:
        return "slower"
    return "no difference" if converged(ratio, blocks, rel_ci) else "not converged"
