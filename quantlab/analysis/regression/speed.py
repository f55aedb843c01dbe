"""Is a cell slower than in the baseline?"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from quantlab.analysis.regression.changes import other_machine
from quantlab.records.bundle import Packed
from quantlab.records.schema import Batch
from quantlab.stats.estimate import Estimate
from quantlab.stats.ratios import MIN_BLOCKS, Ratio, ratio_of_sums


class Slowdown(NamedTuple):
    """Time now / time of the baseline."""

    ratio: Ratio | None  # None: cannot be judged
    how: str  # of what times it is; without a ratio, why there is none
    other_machine: bool = False
    busy: bool = False  # other processes took time of the cores while one of the two was measured


def slowdown(before: Packed, now: Packed) -> Slowdown:
    """Compare times, if they were measured on the same kind of machine.

    If both were timed in turns with fp32, the ratios to fp32 are compared: they do not depend on how busy the machine
    was (MOVER on logarithms, Zou and Donner 2008). Else the times of the same batches are.
    """
    one, other = before.record, now.record
    if differs := other_machine(one, other):
        return Slowdown(None, f"another machine: {differs}", other_machine=True)
    if one.speed is not None and other.speed is not None:
        change = _logarithm(other.speed.ratio, other.speed.ci95).minus(_logarithm(one.speed.ratio, one.speed.ci95))
        if change.ci95 is None or min(one.speed.blocks, other.speed.blocks) < MIN_BLOCKS:
            return Slowdown(None, "too few turns with fp32 to have an interval")
        low, high = change.ci95
        return Slowdown(Ratio(math.exp(change.value), math.exp(low), math.exp(high)), "relative to fp32, in turns")
    theirs, mine = _batches(before.batches), _batches(now.batches)
    if theirs.keys() != mine.keys():
        return Slowdown(None, "the batches are not those of the baseline")
    if len(mine) < MIN_BLOCKS:
        return Slowdown(None, f"{len(mine)} batches have no reliable interval, at least {MIN_BLOCKS} are needed")
    busy = any(item.noise is not None and item.noise.flags for item in (one, other))
    ratio = ratio_of_sums(list(mine.values()), [theirs[key] for key in mine])
    return Slowdown(ratio, f"of {len(mine)} batches, measured once in each of two runs", busy=busy)


def _logarithm(ratio: float, ci95: tuple[float, float]) -> Estimate:
    low, high = ci95
    bounds = (math.log(low), math.log(high)) if low > 0 else None
    return Estimate(math.log(ratio), bounds)


def _batches(batches: Iterable[Batch]) -> dict[tuple[str, int, int, float], float]:
    """What a batch is → its mean time, seconds."""
    times = defaultdict(list)
    for item in batches:
        times[item.split, item.index, item.utterances, round(item.audio_s, 3)].append(item.elapsed_s)
    return {key: statistics.fmean(some) for key, some in times.items()}
