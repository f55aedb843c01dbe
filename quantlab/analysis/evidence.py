"""Intervals and verdicts for a set of records, from their raw counts.

All records are processed together: data shared by several cells (the corpus, its resamples, the baseline) is read and
drawn once, and Holm's correction covers all comparisons of the set. Cells are compared with their baselines, or with
references asked for.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from quantlab.analysis import looks
from quantlab.analysis.hidden import Hidden, compared, corrected, failures
from quantlab.analysis.looks import again_of
from quantlab.analysis.nonspeech import NonspeechEvidence, nonspeech_evidence
from quantlab.analysis.pairs import Pair, Scores, Warn, find_baselines, pair_up, read_scores
from quantlab.analysis.references import Reference
from quantlab.analysis.streaming import StreamingEvidence, streaming_evidence
from quantlab.config.schema import StatsConfig
from quantlab.records.schema import Adaptive, Record
from quantlab.records.several import Stored
from quantlab.stats.bootstrap import minimum_detectable, p_value
from quantlab.stats.estimate import Estimate, Interval
from quantlab.stats.paired import Verdict, holm, mapsswe, noninferior, verdict
from quantlab.stats.rates import Counts, Rates, Resampled, Sample, by_rule_of_three, resample
from quantlab.stats.shares import share

Key = TypeVar("Key", bound=Hashable)
Word = Literal["baseline", "reference"] | Verdict  # the first two: of a cell that others are compared with


@dataclass(frozen=True)
class SplitEvidence:
    """95 % intervals of a split's rates and of its differences to the reference; fractions, None if absent."""

    wer_ci95: Interval | None = None
    cer_ci95: Interval | None = None
    ci_unit: Literal["speaker", "utterance"] | None = None  # unit of the resamples
    ci_units: int | None = None  # number of units in the split
    wer_difference: Estimate | None = None
    cer_difference: Estimate | None = None


@dataclass(frozen=True)
class Comparison:
    """A cell against its reference over all splits, on the utterances that both have; rates are fractions."""

    wer_difference: Estimate  # cell − reference
    cer_difference: Estimate | None
    p: float  # of "no difference in WER"
    p_holm: float
    p_mapsswe: float | None
    z_mapsswe: float | None  # None also if infinite
    mde: float | None  # minimum detectable effect
    noninferior: bool
    margin: float
    unit: Literal["speaker", "utterance"]
    units: int
    utterances: int


@dataclass(frozen=True)
class Evidence:
    """Statistical evidence from the utterances of a cell; all None if it has no text or its status is not ok."""

    baseline: str | None = None  # cell id
    verdict: Word | None = None
    wer_ci95: Interval | None = None
    cer_ci95: Interval | None = None
    comparison: Comparison | None = None
    splits: dict[str, SplitEvidence] = field(default_factory=dict)
    nonspeech: NonspeechEvidence | None = None  # None without such audio
    hidden: Hidden = field(default_factory=dict)  # failures that the WER adds up, by kind
    no_regression: Estimate | None = None  # share of utterances with no more errors than the reference's
    streaming: StreamingEvidence | None = None  # None without streams
    against: Reference | None = None  # if asked for: what the cell is compared with instead of its baseline

    @property
    def reference(self) -> str | None:
        """Id of the cell that this one is compared with; its own if others are compared with it."""
        return self.baseline if self.against is None else self.against.cell_id


class _Settings(NamedTuple):
    margin: float  # fraction
    resamples: int


def evidence(
    found: Sequence[Stored],
    margin: float | None = None,
    warn: Warn = lambda message: None,
    references: Mapping[str, Reference] | None = None,
) -> dict[str, Evidence]:
    """Compare every cell with its baseline, or with another reference.

    Args:
        found: the cells, including their baselines and references.
        margin: non-inferiority margin in percentage points of WER; None: `stats.margin` of each record.
        warn: called for unreadable raw files, and for cells whose utterances differ from the reference's.
        references: cell id → what to compare it with (`find_references`); others are not compared. None: baselines.

    Returns:
        Evidence by cell id, for every record.
    """
    records = [item.record for item in found]
    baselines = find_baselines(records)
    blank = {
        item.cell_id: Evidence(baselines.get(item.cell_id), against=(references or {}).get(item.cell_id))
        for item in records
    }
    settings = {item.cell_id: _settings(item, margin) for item in records}
    scores = read_scores(found, warn)
    own = _own_intervals(scores, settings)
    compared_with = {cell_id: item.reference for cell_id, item in blank.items() if references is None or item.against}
    others = {cell_id: other for cell_id, other in compared_with.items() if other is not None}
    looked = again_of(records, scores, others, warn)
    may_be = {cell_id: other for cell_id, other in others.items() if cell_id not in looked.refused}
    pairs = pair_up(scores, may_be, warn, looked.stopped)
    comparisons = _comparisons(pairs, settings, looked.adaptive)
    hidden = _hidden(scores, {cell_id: pair for cell_id, pair in pairs.items() if cell_id not in looked.stopped})
    resamples = {cell_id: item.resamples for cell_id, item in settings.items()}
    whole = {cell_id: other for cell_id, other in others.items() if cell_id not in looked.stopped}
    nonspeech = nonspeech_evidence(found, whole, resamples, warn)
    streaming = streaming_evidence(found, scores, resamples, warn)
    blank = {
        cell_id: replace(
            item,
            nonspeech=nonspeech.get(cell_id),
            streaming=streaming.get(cell_id),
            hidden=hidden.get(cell_id, {}),
            no_regression=_no_regression(pairs.get(cell_id)),
        )
        for cell_id, item in blank.items()
    }
    filled = {
        cell_id: _filled(cell_id, item, own[cell_id], comparisons.get(cell_id)) if cell_id in own else item
        for cell_id, item in blank.items()
    }
    return {cell_id: _of_part(item) if cell_id in looked.stopped else item for cell_id, item in filled.items()}


def _of_part(item: Evidence) -> Evidence:
    """Without the intervals that hold only if the number of utterances does not depend on what was heard."""
    splits = {
        name: SplitEvidence(
            ci_unit=one.ci_unit,
            ci_units=one.ci_units,
            wer_difference=one.wer_difference and Estimate(one.wer_difference.value),
            cer_difference=one.cer_difference and Estimate(one.cer_difference.value),
        )
        for name, one in item.splits.items()
    }
    share = item.no_regression and Estimate(item.no_regression.value)
    hidden = {kind: replace(one, share=Estimate(one.share.value)) for kind, one in item.hidden.items()}
    return replace(item, wer_ci95=None, cer_ci95=None, splits=splits, no_regression=share, hidden=hidden)


def _hidden(scores: Mapping[str, Scores], pairs: Mapping[str, Pair]) -> dict[str, Hidden]:
    found = {cell_id: failures(item.sample, item.events) for cell_id, item in scores.items()}
    for cell_id, pair in pairs.items():
        if pair.events is not None:
            found[cell_id] = compared(found[cell_id], pair.sample, *pair.events)
    return corrected(found)


def _no_regression(pair: Pair | None) -> Estimate | None:
    if pair is None:
        return None
    return share(pair.cell.words <= pair.reference.words, np.ones(len(pair.sample.ids)), pair.sample.units)


def _settings(record: Record, margin: float | None) -> _Settings:
    default = StatsConfig()
    points = margin if margin is not None else record.setting("stats.margin") or default.margin
    return _Settings(points / 100, record.setting("stats.resamples") or default.resamples)


class _Intervals(NamedTuple):
    """Intervals of one cell, or of its differences."""

    splits: dict[str, Rates]
    pooled: Rates
    sample: Sample


def _own_intervals(scores: Mapping[str, Scores], settings: Mapping[str, _Settings]) -> dict[str, _Intervals]:
    keys = {cell_id: (item.sample, settings[cell_id].resamples) for cell_id, item in scores.items()}
    found: dict[str, _Intervals] = {}
    for (sample, resamples), ids in _grouped(keys).items():
        for some, result in _resampled(sample, {cell_id: scores[cell_id].counts for cell_id in ids}, resamples):
            found |= dict.fromkeys(some, _Intervals(result.splits, result.pooled, sample))
    return found


def _resampled(sample: Sample, counts: Mapping[str, Counts], resamples: int) -> Iterator[tuple[list[str], Resampled]]:
    """Cells with the same errors in every utterance, and their rates, resampled once: often only the seed differs."""
    alike = _grouped({cell_id: (item.words.tobytes(), item.chars.tobytes()) for cell_id, item in counts.items()})
    results = resample(sample, [counts[some[0]] for some in alike.values()], resamples)
    return zip(alike.values(), results, strict=True)


def _comparisons(
    pairs: Mapping[str, Pair], settings: Mapping[str, _Settings], looked: Mapping[str, Adaptive]
) -> dict[str, tuple[Comparison, _Intervals]]:
    keys = {cell_id: (pair.sample, settings[cell_id].resamples) for cell_id, pair in pairs.items()}
    found: dict[str, tuple[Comparison, _Intervals]] = {}
    for (sample, resamples), ids in _grouped(keys).items():
        results = _resampled(sample, {cell_id: _differences(pairs[cell_id]) for cell_id in ids}, resamples)
        for cell_id, result in ((cell_id, result) for some, result in results for cell_id in some):
            if result.pooled.wer is not None:
                result = bounded(pairs[cell_id], result)
                compared = _comparison(pairs[cell_id], result, settings[cell_id].margin)
                if cell_id in looked:
                    compared = _by_looks(compared, looked[cell_id])
                found[cell_id] = compared, _Intervals(result.splits, result.pooled, sample)
    corrected = holm([comparison.p for comparison, _ in found.values()])
    return {
        cell_id: (replace(comparison, p_holm=p), intervals)
        for (cell_id, (comparison, intervals)), p in zip(found.items(), corrected, strict=True)
    }


def _grouped(keys: Mapping[str, Key]) -> dict[Key, list[str]]:
    groups: dict[Key, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return groups


def _differences(pair: Pair) -> Counts:
    return Counts(pair.cell.words - pair.reference.words, pair.cell.chars - pair.reference.chars)


def bounded(pair: Pair, result: Resampled) -> Resampled:
    """Widen the intervals of WER differences where no utterance has more, or fewer, errors (`by_rule_of_three`)."""
    more, fewer = pair.cell.words > pair.reference.words, pair.cell.words < pair.reference.words
    words, splits = np.array(pair.sample.words), np.array(pair.sample.splits)

    def widened(rates: Rates, chosen: Any) -> Rates:
        if rates.wer is None:
            return rates
        length = float(words[chosen].sum())
        return rates._replace(
            wer=by_rule_of_three(rates.wer, length, bool(more[chosen].any()), bool(fewer[chosen].any()))
        )

    return replace(
        result,
        splits={name: widened(rates, splits == name) for name, rates in result.splits.items()},
        pooled=widened(result.pooled, slice(None)),
    )


def _comparison(pair: Pair, result: Resampled, margin: float) -> Comparison:
    """The comparison before Holm's correction."""
    wer, cer = result.pooled
    assert wer is not None
    units = pair.sample.units
    p = p_value(result.samples, wer.value, units.count) if wer.ci95 else 1.0
    second = mapsswe(pair.cell.words, pair.reference.words)
    return Comparison(
        wer_difference=wer,
        cer_difference=cer,
        p=p,
        p_holm=p,
        p_mapsswe=second.p if second else None,
        z_mapsswe=second.z if second and math.isfinite(second.z) else None,
        mde=minimum_detectable(result.samples) if wer.ci95 else None,
        noninferior=noninferior(wer.ci95[1] if wer.ci95 else None, margin),
        margin=margin,
        unit=units.kind,
        units=units.count,
        utterances=len(pair.sample.ids),
    )


def _by_looks(comparison: Comparison, adaptive: Adaptive) -> Comparison:
    """The comparison of a cell that might have stopped at each look: interval and p-value hold at all of them."""
    change, cer = looks.difference(adaptive), comparison.cer_difference
    return replace(
        comparison,
        wer_difference=change,
        cer_difference=cer and Estimate(cer.value),
        p=looks.p_value(adaptive),
        p_mapsswe=None,
        z_mapsswe=None,
        mde=None,
        noninferior=noninferior(change.ci95[1] if change.ci95 else None, comparison.margin),
    )


def _filled(cell_id: str, blank: Evidence, own: _Intervals, compared: tuple[Comparison, _Intervals] | None) -> Evidence:
    comparison, differences = compared or (None, None)
    reference: Word = "baseline" if blank.against is None else "reference"
    return replace(
        blank,
        verdict=reference if blank.reference == cell_id else _word(comparison) if comparison else None,
        wer_ci95=_interval(own.pooled.wer),
        cer_ci95=_interval(own.pooled.cer),
        comparison=comparison,
        splits={name: _split(own, name, differences.splits.get(name) if differences else None) for name in own.splits},
    )


def _word(comparison: Comparison) -> Verdict:
    change = comparison.wer_difference
    high = change.ci95[1] if change.ci95 else None
    return verdict(change.value, comparison.p_holm, high, comparison.margin)


def _split(own: _Intervals, name: str, difference: Rates | None) -> SplitEvidence:
    rates, units = own.splits[name], own.sample.units
    change = difference or Rates(None, None)
    intervals = _interval(rates.wer), _interval(rates.cer)
    return SplitEvidence(*intervals, units.kind, own.sample.units_of(name), change.wer, change.cer)


def _interval(rate: Estimate | None) -> Interval | None:
    return None if rate is None else rate.ci95
