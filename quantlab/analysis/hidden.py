"""Figures that a WER hides: each kind of failure with an interval, and a paired verdict against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from quantlab.analysis.events import Events, Ints
from quantlab.stats.bootstrap import interval, resampled_sums
from quantlab.stats.estimate import Estimate
from quantlab.stats.paired import ALPHA, holm
from quantlab.stats.rates import RULE_OF_THREE, Sample
from quantlab.stats.shares import share, swapped_p

More = Literal["more", "fewer", "not shown"]
KINDS = Events._fields
RESAMPLES = 2_000  # of inserted words; their interval is not compared with a margin


@dataclass(frozen=True)
class Failure:
    """One kind of failure: a share of utterances, or inserted words / reference words."""

    share: Estimate
    difference: float | None = None  # to the reference, on common utterances; None without one
    p: float | None = None  # of "no difference"; None also for too few units
    p_holm: float | None = None  # over the cells compared in the report, for each kind
    verdict: More | None = None


Hidden = dict[str, Failure]  # by kind, see `Events`; kinds that an older record did not count are left out


def failures(sample: Sample, found: Events) -> Hidden:
    """The failures of one system, with intervals."""
    known = {kind: counts for kind, counts in found._asdict().items() if counts is not None}
    estimates = {kind: _estimate(kind, counts, sample) for kind, counts in known.items()}
    return {kind: Failure(estimate) for kind, estimate in estimates.items() if estimate is not None}


def compared(hidden: Hidden, sample: Sample, cell: Events, reference: Events) -> Hidden:
    """With differences to a reference and their p; not yet corrected."""
    found = dict(hidden)
    for kind, own, other in zip(KINDS, cell, reference, strict=True):
        if kind in found and own is not None and other is not None:
            change = own - other
            cases = sum(sample.words) if kind == "insertions" else len(sample.ids)
            p = swapped_p(change, sample.units) if sample.units.enough else None
            found[kind] = replace(found[kind], difference=float(change.sum()) / cases, p=p)
    return found


def corrected(cells: Mapping[str, Hidden]) -> dict[str, Hidden]:
    """With Holm's correction over the cells, for each kind, and verdicts."""
    found = {cell_id: dict(hidden) for cell_id, hidden in cells.items()}
    for kind in KINDS:
        tested = [hidden for hidden in found.values() if kind in hidden and hidden[kind].p is not None]
        for hidden, p in zip(tested, holm([hidden[kind].p or 0.0 for hidden in tested]), strict=True):
            change = hidden[kind].difference or 0.0
            word: More = "not shown" if p >= ALPHA or not change else "more" if change > 0 else "fewer"
            hidden[kind] = replace(hidden[kind], p_holm=p, verdict=word)
    return found


def _estimate(kind: str, counts: Ints, sample: Sample) -> Estimate | None:
    if kind != "insertions":
        return share(counts, np.ones(len(counts)), sample.units)
    words = np.array(sample.words, dtype=np.float64)
    if not words.sum():
        return None
    value = float(counts.sum() / words.sum())
    if not sample.units.enough:
        return Estimate(value)
    if not counts.any():
        return Estimate(value, (0.0, RULE_OF_THREE / float(words.sum())))
    sums = resampled_sums(sample.units, np.stack([counts, words], axis=-1)[:, None, :].astype(np.float64), RESAMPLES)
    low, high = interval(sums[-1, 0] / np.maximum(sums[-1, 1], 1))
    return Estimate(value, (float(low), float(high)))
