"""Main effects in a factorial design: the effect of one factor with all others equal.

The effect of level b against level a of a factor is the mean of WER(b) − WER(a) over matched pairs of systems that
differ only in that factor (Box, Hunter, Hunter, "Statistics for Experimenters", section 5.4). All systems were measured
on the same utterances, so the mean difference of rates is a rate of summed differences of errors, and effects use the
same resamples as single systems.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from quantlab.stats.bootstrap import p_value
from quantlab.stats.estimate import Estimate
from quantlab.stats.rates import Counts, Sample, resample


class Matched(NamedTuple):
    """Two systems that differ only in one factor."""

    reference: Counts
    changed: Counts


@dataclass(frozen=True)
class Effect:
    """A main effect on the pooled WER; fractions."""

    mean: Estimate  # of changed − reference over the pairs
    smallest: float  # smallest difference of a pair
    largest: float
    pairs: int
    p: float  # two-sided, of "no effect"; 1 if there are too few units for an interval


def main_effects(sample: Sample, contrasts: Sequence[Sequence[Matched]], resamples: int) -> Iterator[Effect]:
    """The effect of each contrast, in order; p-values are not corrected for multiple testing.

    Args:
        sample: the common utterances of all systems, with at least one reference word.
        contrasts: for each pair of levels the matched pairs, at least one.
        resamples: number of bootstrap resamples.
    """
    summed = [_sum([_more(pair) for pair in pairs]) for pairs in contrasts]
    for pairs, result in zip(contrasts, resample(sample, summed, resamples), strict=True):
        total = result.pooled.wer
        assert total is not None
        differences = [_more(pair).words.sum() / sum(sample.words) for pair in pairs]
        known = total.ci95 is not None
        p = p_value(result.samples, total.value, sample.units.count) if known else 1.0
        yield Effect(total.times(1 / len(pairs)), float(min(differences)), float(max(differences)), len(pairs), p)


def _more(pair: Matched) -> Counts:
    return Counts(pair.changed.words - pair.reference.words, pair.changed.chars - pair.reference.chars)


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(np.sum([item.words for item in counts], axis=0), np.sum([item.chars for item in counts], axis=0))
