"""Bootstrap confidence intervals of error rates and their differences.

Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation" (ICASSP 2004).
A resample draws as many units as there are, with replacement. Errors and reference words are summed over the same draw,
since an error rate is a ratio of sums. Resamples are stored as weights (how often each unit was drawn), so that one
matrix product applies the same draws to all systems measured on the same utterances, which pairs them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.integer]

MIN_UNITS = 10  # fewer units show too little of their variation: no interval, and speakers are not used as units
SEED = 20040517  # fixed, so that reports are reproducible
_CHUNK = 2**17  # weights drawn at a time; 1 MiB fits a core's cache
_KEPT = 2**25  # most weights cached, 64 MiB; also keeps each below 2^16
_THINNED = 16  # every so many resamples tell about where an interval ends
_ALPHA_INVERSE = 20  # 1 / (1 - 0.95)
_Z95 = NormalDist().inv_cdf(0.975)
_Z_POWER = NormalDist().inv_cdf(0.80)


@dataclass(frozen=True)
class Units:
    """Resampling units: speakers, or utterances if speakers are unknown or too few; drawn within each stratum."""

    kind: Literal["speaker", "utterance"]
    of_utterance: npt.NDArray[np.intp]  # (utterances,): unit number of each utterance
    strata: tuple[int, ...]  # number of units per stratum; units are numbered in this order

    @property
    def count(self) -> int:
        return sum(self.strata)

    @property
    def enough(self) -> bool:
        """Whether there are enough units for an interval."""
        return self.count >= MIN_UNITS


def choose_units(splits: Sequence[str], speakers: Sequence[str | None]) -> Units:
    """Choose speakers as units if every utterance has one and there are enough of them, else utterances.

    Errors of one speaker's utterances are correlated, so drawing utterances would give intervals that are too narrow.
    Every split is a stratum; splits that share speakers form one stratum, since a speaker is drawn in all of them at
    once.

    Args:
        splits: split of each utterance.
        speakers: speaker of each utterance.
    """
    known = [speaker for speaker in speakers if speaker is not None]
    if len(known) == len(speakers) and len(set(known)) >= MIN_UNITS:
        stratum = _joined(splits, known)
        return _numbered("speaker", known, [stratum[split] for split in splits])
    return _numbered("utterance", range(len(splits)), splits)


def _joined(splits: Sequence[str], speakers: Sequence[str]) -> dict[str, str]:
    """Split → the first split that it is connected to by common speakers."""
    found = {split: split for split in splits}
    seen: dict[str, str] = {}
    for split, speaker in dict.fromkeys(zip(splits, speakers, strict=True)):
        here, there = found[split], found[seen.setdefault(speaker, split)]
        found = {name: there if stratum == here else stratum for name, stratum in found.items()}
    return found


def _numbered(kind: Literal["speaker", "utterance"], names: Sequence[str] | range, strata: Sequence[str]) -> Units:
    pairs = dict.fromkeys(zip(strata, names, strict=True))
    sizes = dict.fromkeys(strata, 0)
    for stratum, _ in pairs:
        sizes[stratum] += 1
    order = {stratum: index for index, stratum in enumerate(sizes)}
    numbers = {pair: number for number, pair in enumerate(sorted(pairs, key=lambda pair: order[pair[0]]))}
    of_utterance = np.array([numbers[pair] for pair in zip(strata, names, strict=True)], dtype=np.intp)
    return Units(kind, of_utterance, tuple(sizes.values()))


def resampled_sums(units: Units, columns: Floats, resamples: int, out: Floats | None = None) -> Floats:
    """Sums of the columns over each resample.

    The same units and number of resamples give the same draws, so that sums of separate calls are paired.

    Args:
        units: units of the utterances.
        columns: (utterances, groups, columns), whole numbers: errors of one system, reference words, … A group is zero
            outside some utterances, such as a split; skipping those saves most of the work.
        resamples: number of resamples.
        out: array for the sums, as allocating new memory takes as long as the sums.

    Returns:
        (groups + 1, columns, resamples), the last the sum of all groups; exact: whole numbers below 2^53 stay whole
        in float64.
    """
    totals = np.zeros((units.count, *columns.shape[1:]))
    np.add.at(totals, units.of_utterance, columns)
    parts = [(used := _used(totals[:, group]), totals[used, group].T) for group in range(columns.shape[1])]
    groups, count = columns.shape[1:]
    sums = np.empty((groups + 1, count, resamples)) if out is None else out
    start = 0
    with _blas().limit(limits=1, user_api="blas"):  # chunks are small, so threads would mostly wait for each other
        for weights in _draws(units.strata, resamples):
            for group, (used, transposed) in enumerate(parts):
                np.matmul(transposed, weights[:, used].T, out=sums[group, :, start : start + len(weights)])
            start += len(weights)
    np.sum(sums[:-1], axis=0, out=sums[-1])
    return sums


@functools.cache
def _blas() -> ThreadpoolController:
    """The thread pool controller, cached: finding the libraries takes some milliseconds."""
    return ThreadpoolController()


def _used(totals: Floats) -> slice:
    """The range from the first to the last unit with non-zero totals."""
    found = np.flatnonzero(totals.any(axis=1))
    return slice(found[0], found[-1] + 1) if len(found) else slice(0, 0)


def _draws(strata: tuple[int, ...], resamples: int) -> Iterator[Floats]:
    """How often each unit was drawn, (resamples, units), in chunks that fit the cache."""
    small = sum(strata) * resamples <= _KEPT
    for piece in _cached_draws(strata, resamples) if small else _drawn(strata, resamples):
        yield piece.astype(np.float64)


@functools.lru_cache(maxsize=1)
def _cached_draws(strata: tuple[int, ...], resamples: int) -> tuple[Weights, ...]:
    """Cached draws, since the systems of a corpus come in several blocks that need the same draws."""
    return tuple(piece.astype(np.uint16) for piece in _drawn(strata, resamples))


def _drawn(strata: tuple[int, ...], resamples: int) -> Iterator[Weights]:
    generator = np.random.default_rng(SEED)
    piece = max(1, _CHUNK // sum(strata))
    for start in range(0, resamples, piece):
        rows = min(piece, resamples - start)
        yield np.concatenate([_multinomial(generator, rows, units) for units in strata], axis=1)


def _multinomial(generator: np.random.Generator, rows: int, units: int) -> Weights:
    """Same as `generator.multinomial(units, [1 / units] * units, rows)`, but much faster for many units."""
    drawn = generator.integers(units, size=(rows, units))
    drawn += (np.arange(rows) * units)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)


def interval(samples: Floats) -> Floats:
    """95 % percentile interval: the 250th of 10,000 resamples from either end.

    Args:
        samples: (…, resamples).

    Returns:
        (…, 2), low and high; NaN if a resample has no value (it drew no reference words).
    """
    exists = np.isfinite(samples.sum(axis=-1))  # the sum is finite only if all are
    bounds = np.full((*samples.shape[:-1], 2), np.nan)
    for place in np.ndindex(exists.shape):
        if exists[place]:
            bounds[place] = _ends(samples[place])
    return bounds


def _ends(samples: Floats) -> tuple[float, float]:
    """Low and high of one row of resamples.

    Every 16th resample bounds the two tails, of which only some hundred values are then sorted further: three times as
    fast as partitioning the whole row, with the same result.
    """
    index = len(samples) // (2 * _ALPHA_INVERSE) - 1
    few = samples[::_THINNED].copy()
    expected = (index + 1) / _THINNED
    rank = min(math.ceil(expected + 4 * math.sqrt(expected)), len(few) - 1)  # four standard deviations further in
    few.partition([rank, len(few) - 1 - rank])
    low, high = samples[samples <= few[rank]], samples[samples >= few[-1 - rank]]
    if min(len(low), len(high)) <= index:  # the few were not typical
        low = high = samples.copy()
    low.partition(index)
    first = float(low[index])  # before the other end, which may be in the same memory
    high.partition(len(high) - 1 - index)
    return first, float(high[-1 - index])


def p_value(differences: Floats, difference: float, units: int) -> float:
    """Two-sided p of "no difference", below 0.05 exactly if `interval` excludes 0.

    Twice the share of resamples on the far side of 0, with one added to the count (Davison and Hinkley 1997, section
    4.2). If none is on the far side, the tail is taken as normal with the bootstrap's standard deviation: 10,000
    resamples alone cannot go below 0.0002, which would not survive Holm's correction in a grid of 250 cells. The
    result is at least 2^(1 − units), the limit of a sign test.

    Args:
        differences: (resamples,).
        difference: the measured difference.
        units: number of units.
    """
    far = int(min((differences <= 0).sum(), (differences >= 0).sum()))
    p = min(1.0, 2 * (far + 1) / (len(differences) + 1))
    deviation = float(differences.std(ddof=1))
    if far == 0:
        normal = math.erfc(abs(difference) / deviation / math.sqrt(2)) if deviation else 0.0
        p = min(p, normal)
    return max(p, 2.0 ** (1 - units))


def minimum_detectable(differences: Floats) -> float:
    """The true difference that a test at 5 % would detect in 80 % of corpora like this one.

    (z_0.975 + z_0.80) × bootstrap standard deviation; before Holm's correction.
    """
    return (_Z95 + _Z_POWER) * float(differences.std(ddof=1))
