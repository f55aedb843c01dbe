"""The Pareto front of time or size against WER, and how sure it is.

A front through estimates looks exact and is not. Here every cell is drawn again and again from the distribution that
its 95 % intervals stand for (normal for WER, log-normal for time), and each draw has a front of its own: how often a
cell is on it, and between which WERs it runs, is what the data show.
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
_POINTS = 80  # of the band, along x
_Z = 1.959964  # standard deviations to either end of a 95 % interval
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A cell in the plane of cost (x) and WER (y); lower is better in both.

    Cells that share a baseline were scored on the same utterances, so that hard ones move all of them together.
    Their WER is drawn as the baseline's, the same draw for all of them, plus the difference of the paired test.
    """

    cell: str
    x: Estimate
    y: Estimate  # WER
    baseline: tuple[str, Estimate] | None = None  # its cell and WER
    difference: Estimate | None = None  # WER − the baseline's; None for the baseline itself


@dataclass(frozen=True)
class Front:
    """The front of the estimates, how often each cell is on the front of a draw, and the band of those fronts."""

    cells: tuple[str, ...]  # on the front of the estimates, by x
    share: Mapping[str, float]  # cell → share of draws
    x: tuple[float, ...]
    low: tuple[float, ...]  # WER at the 2.5th percentile of draws, at x
    high: tuple[float, ...]  # at the 97.5th


def front(candidates: Sequence[Candidate], seed: int = 0) -> Front | None:
    """The front of some cells; None where there are fewer than two."""
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
    """(count,) values that could have been measured instead; without an interval the figure is taken as exact."""
    return found.value + errors(found, random, count)


def multiples(found: Estimate, random: np.random.Generator, count: int) -> Array:
    """The same for a time or a ratio, which errs by a factor and has no 0: log-normal."""
    if found.ci95 is None or found.ci95[0] <= 0:
        return draws(found, random, count)
    deviation = float(np.log(found.ci95[1] / found.ci95[0])) / (2 * _Z)
    return found.value * np.exp(random.normal(0.0, deviation, count))


def errors(found: Estimate, random: np.random.Generator, count: int) -> Array:
    """(count,) errors that the estimate could have, around 0."""
    deviation = 0.0 if found.ci95 is None else (found.ci95[1] - found.ci95[0]) / (2 * _Z)
    return random.normal(0.0, deviation, count)


def _draws(candidates: Sequence[Candidate], random: np.random.Generator) -> tuple[Array, Array]:
    """(draws, cells) of x and of y."""
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
    """Which cells no other cell beats: (draws, cells) each; of cells that are equal in both, one is on it."""
    order = np.lexsort((y, x), axis=1)
    sorted_y = np.take_along_axis(y, order, axis=1)
    best_before = np.minimum.accumulate(sorted_y, axis=1)[:, :-1]
    found = np.ones_like(sorted_y, dtype=bool)
    found[:, 1:] = sorted_y[:, 1:] < best_before
    back = np.empty_like(found)
    np.put_along_axis(back, order, found, axis=1)
    return back


def _band(x: Array, y: Array, centres: Array) -> dict[str, tuple[float, ...]]:
    """The lowest WER to be had for at most x, from the 2.5th to the 97.5th percentile of draws."""
    first, last = float(np.min(centres)), float(np.max(centres))
    at = np.geomspace(first, last, _POINTS) if first > 0 else np.linspace(first, last, _POINTS)
    at[-1] = last  # rounding must not leave the last cell out
    best = np.stack([np.min(np.where(x <= point, y, np.inf), axis=1) for point in at], axis=1)
    low, high = np.quantile(best, [0.025, 0.975], axis=0, method="inverted_cdf")
    there = np.isfinite(high)  # left of that, some draws have no cell as cheap as this
    return {
        "x": tuple(map(float, at[there])),
        "low": tuple(map(float, np.maximum(low[there], 0.0))),  # a normal distribution knows no 0, WER does
        "high": tuple(map(float, high[there])),
    }
