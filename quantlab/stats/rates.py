"""Error rates of several systems on one corpus, and their differences, with bootstrap intervals."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantlab.stats.bootstrap import Floats, Units, choose_units, interval, resampled_sums
from quantlab.stats.estimate import Estimate

RULE_OF_THREE = 3.0  # upper 95 % bound of the number of events if none was observed
_LEAST, _MOST = 2**19, 2**21  # resampled sums computed at once: 4 MiB, which partly fits a cache, to 16 MiB


@dataclass(frozen=True)
class Sample:
    """The utterances that systems are compared on; hashable, as many systems share a sample."""

    splits: tuple[str, ...]  # per utterance, like all other fields
    ids: tuple[str, ...]
    speakers: tuple[str | None, ...]
    words: tuple[int, ...]  # in the normalised reference
    chars: tuple[int, ...]

    @cached_property
    def units(self) -> Units:
        """The resampling units of this corpus."""
        return choose_units(self.splits, self.speakers)

    def units_of(self, split: str) -> int:
        """The number of units with utterances in a split."""
        return self._units_of[split]

    @cached_property
    def _units_of(self) -> dict[str, int]:
        seen = set(zip(self.splits, self.units.of_utterance.tolist(), strict=True))
        return Counter(split for split, _ in seen)

    def only(self, kept: Sequence[int]) -> Sample:
        """The utterances at these positions, in this order."""
        return Sample(
            splits=tuple(self.splits[index] for index in kept),
            ids=tuple(self.ids[index] for index in kept),
            speakers=tuple(self.speakers[index] for index in kept),
            words=tuple(self.words[index] for index in kept),
            chars=tuple(self.chars[index] for index in kept),
        )


class Counts(NamedTuple):
    """Errors per utterance of one system, or the difference of two systems."""

    words: npt.NDArray[np.int64]  # S + D + I
    chars: npt.NDArray[np.int64]


def by_rule_of_three(rate: Estimate, length: float, more: bool, fewer: bool) -> Estimate:
    """Widen the interval of a rate, or of a difference of two, where events of one kind were not observed.

    If no utterance has such an event, no resample has either, and an interval that ends at 0 would exclude rare ones
    however small the corpus is. By the rule of three (Hanley and Lippman-Hand 1983), an event not observed in n words
    may have a rate of 3 / n. An end on the other side of 0 is unchanged, as the difference is then significant.

    Args:
        rate: with or without an interval.
        length: n, what the rate is per.
        more: whether events that raise the rate were observed.
        fewer: whether events that lower it were, or cannot be.
    """
    if rate.ci95 is None or not length:
        return rate
    low, high = rate.ci95
    if high >= 0 and not more:
        high = max(high, RULE_OF_THREE / length)
    if low <= 0 and not fewer:
        low = min(low, -RULE_OF_THREE / length)
    return replace(rate, ci95=(low, high))


class Rates(NamedTuple):
    """Error rates as fractions; None without reference words, no interval from too few units."""

    wer: Estimate | None
    cer: Estimate | None


@dataclass(frozen=True)
class Resampled:
    """Resampled rates of one system on one corpus."""

    splits: dict[str, Rates]
    pooled: Rates  # all errors / all reference words
    samples: Floats  # (resamples,): the pooled WER of each resample


def resample(sample: Sample, systems: Sequence[Counts], resamples: int) -> Iterator[Resampled]:
    """Compute the rates of each system in turn.

    All systems use the same resamples, so that the rate of differences is the paired difference of rates.
    """
    names = tuple(dict.fromkeys(sample.splits))
    lengths = _by_split(names, sample, [Counts(np.array(sample.words), np.array(sample.chars))])
    resampled_lengths = _resampled(sample, lengths, resamples)
    at_once = min(max(_LEAST, sample.units.count * resamples), _MOST)  # at least as many as weights
    block = max(1, at_once // (2 * (len(names) + 1) * resamples))
    memory = np.empty((len(names) + 1) * 2 * block * resamples)
    for start in range(0, len(systems), block):
        errors = _by_split(names, sample, systems[start : start + block])
        with np.errstate(divide="ignore", invalid="ignore"):  # no reference words, no rate
            values = _with_pooled(errors.sum(axis=0)) / _with_pooled(lengths.sum(axis=0))
            samples = _resampled(sample, errors, resamples, memory)
            samples /= resampled_lengths
        pooled = samples[-1, 0].copy()
        intervals = interval(samples)
        for index in range(errors.shape[-1]):
            rates = [
                Rates(*map(functools.partial(_rate, sample.units), values[place, :, index], intervals[place, :, index]))
                for place in range(len(names) + 1)
            ]
            yield Resampled(dict(zip(names, rates[:-1], strict=True)), rates[-1], pooled[index])


def _by_split(names: Sequence[str], sample: Sample, systems: Sequence[Counts]) -> Floats:
    """(utterances, splits, words and characters, systems): counts in the utterance's split, 0 elsewhere."""
    of_split = np.array([[split == name for name in names] for split in sample.splits], dtype=np.float64)
    counts = np.array([[system.words, system.chars] for system in systems], dtype=np.float64)
    return np.einsum("us,tku->uskt", of_split, counts)


def _resampled(sample: Sample, columns: Floats, resamples: int, memory: Floats | None = None) -> Floats:
    """(splits and their total, words and characters, systems, resamples), in `memory` if given."""
    utterances, splits, *rest = columns.shape
    columns = columns.reshape(utterances, splits, -1)
    shape = splits + 1, columns.shape[-1], resamples
    out = None if memory is None else memory[: math.prod(shape)].reshape(shape)
    return resampled_sums(sample.units, columns, resamples, out).reshape(splits + 1, *rest, resamples)


def _with_pooled(sums: Floats) -> Floats:
    """Append the sum over the splits."""
    return np.concatenate([sums, sums.sum(axis=0, keepdims=True)])


def _rate(units: Units, value: float, bounds: Floats) -> Estimate | None:
    low, high = map(float, bounds)
    known = units.enough and math.isfinite(low)
    return Estimate(float(value), (low, high) if known else None) if math.isfinite(value) else None
