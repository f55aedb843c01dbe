"""Pareto front of time or size against WER, with its uncertainty.

A front through estimates looks exact and is not. Here each cell is resampled from the distribution that its 95 %
intervals describe (normal for WER, log-normal for time), and the front of each draw is computed. The share of draws
that have a cell on their front, and the band of those fronts, show the uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantlab.stats.estimate import Estimate

DRAWS = 1000
_MOST = 200_000  # draws × cells; a grid of 1,000 cells still takes well under a second
_FEWEST = 200
_POINTS = 80  # points of the band along x
_Z = 1.959964  # half-width of a 95 % interval in standard deviations
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A cell as a point of cost (x) and WER (y); lower is better in both.

    The WERs of cells that share a baseline are correlated, since they were scored on the same utterances. Their WER is
    therefore drawn as the baseline's WER (one draw for all of them) plus the difference of the paired test.
    """

    cell: str
    x: Estimate
    y: Estimate  # WER
    baseline: tuple[str, Estimate] | None = None  # cell id and WER of the baseline
    difference: Estimate | None = None  # WER − the baseline's; None for the baseline itself


@dataclass(frozen=True)
class Front:
    """The front of the estimates, each cell's share of draws on the front, and the band of the draws' fronts."""

    cells: tuple[str, ...]  # on the front of the estimates, in order of x
    share: Mapping[str, float]  # cell → share of draws
    x: tuple[float, ...]
    low: tuple[float, ...]  # 2.5th percentile of the draws' WER at each x
    high: tuple[float, ...]  # 97.5th percentile


def front(candidates: Sequence[Candidate], seed: int = 0) -> Front | None:
    """The Pareto front of the cells; None if there are fewer than two."""
    if len(candidates) < 2:
        return None
    names = [candidate.cell for candidate in candidates]
    estimates = np.array([[c.x.value, c.y.value] for c in candidates])
    best = on_front(estimates[None, :, 0], estimates[None, :, 1])[0]
    x, y = _draws(candidates, np.random.default_rng(seed))
    share = on_front(x, y).mean(axis=0)
    return Front(
        cells=tuple(names[index] for index in np.argsort(estimates[:, 0], kind="stable") if best[index]),
        share=dict(zip(names, map(float, share), strict=True)),
        **_band(x, y, estimates[:, 0]),
    )


def draws(found: Estimate, random: np.random.Generator, count: int) -> Array:
    """(count,) draws from the normal distribution of an estimate; one without an interval is taken as exact."""
    return found.value + errors(found, random, count)


def multiples(found: Estimate, random: np.random.Generator, count: int) -> Array:
    """(count,) log-normal draws, for times and ratios, which are positive and have multiplicative errors."""
    if found.ci95 is None or found.ci95[0] <= 0:
        return draws(found, random, count)
    deviation = float(np.log(found.ci95[1] / found.ci95[0])) / (2 * _Z)
    return found.value * np.exp(random.normal(0.0, deviation, count))


def errors(found: Estimate, random: np.random.Generator, count: int) -> Array:
    """(count,) draws of the error of an estimate, around 0."""
    deviation = 0.0 if found.ci95 is None else (found.ci95[1] - found.ci95[0]) / (2 * _Z)
    return random.normal(0.0, deviation, count)


def _draws(candidates: Sequence[Candidate], random: np.random.Generator) -> tuple[Array, Array]:
    """Draws of x and y, (draws, cells) each."""
    count = int(np.clip(_MOST // len(candidates), _FEWEST, DRAWS))
    shared: dict[str, Array] = {}

    def wer(candidate: Candidate) -> Array:
        if candidate.baseline is None:
            return draws(candidate.y, random, count)
        name, estimate = candidate.baseline
        if name not in shared:
            shared[name] = draws(estimate, random, count)
        if candidate.difference is None:
            return shared[name]
        error = errors(candidate.difference, random, count)
        return shared[name] + candidate.y.value - estimate.value + error

    x = np.stack([multiples(candidate.x, random, count) for candidate in candidates], axis=1)
    return x, np.stack([wer(candidate) for candidate in candidates], axis=1)


def on_front(x: Array, y: Array) -> npt.NDArray[np.bool_]:
    """Which cells are not dominated, (draws, cells) each; of cells equal in both coordinates, one is on the front."""
    order = np.lexsort((y, x), axis=1)
    sorted_y = np.take_along_axis(y, order, axis=1)
    best_before = np.minimum.accumulate(sorted_y, axis=1)[:, :-1]
    found = np.ones_like(sorted_y, dtype=bool)
    found[:, 1:] = sorted_y[:, 1:] < best_before
    back = np.empty_like(found)
    np.put_along_axis(back, order, found, axis=1)
    return back


def _band(x: Array, y: Array, centres: Array) -> dict[str, tuple[float, ...]]:
    """The lowest WER at cost of at most x: 2.5th to 97.5th percentile of the draws."""
    first, last = float(np.min(centres)), float(np.max(centres))
    at = np.geomspace(first, last, _POINTS) if first > 0 else np.linspace(first, last, _POINTS)
    at[-1] = last  # so that rounding cannot exclude the last cell
    best = np.stack([np.min(np.where(x <= point, y, np.inf), axis=1) for point in at], axis=1)
    low, high = np.quantile(best, [0.025, 0.975], axis=0, method="inverted_cdf")
    there = np.isfinite(high)  # further left, some draws have no cell of that cost
    return {
        "x": tuple(map(float, at[there])),
        "low": tuple(map(float, np.maximum(low[there], 0.0))),  # unlike its normal approximation, WER is never negative
        "high": tuple(map(float, high[there])),
    }
