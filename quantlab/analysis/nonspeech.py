"""Words written where nothing was said, per minute of such audio, with intervals and paired differences.

A rate like WER, with the length of the audio in place of the reference's words, so resamples, units and tests are the
same. Where no word was written at all, no resample has one either: the interval then ends at 3 words in all the audio
(rule of three, Hanley and Lippman-Hand 1983), and that of a difference likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from quantlab.analysis.events import Events
from quantlab.analysis.hidden import More
from quantlab.analysis.pairs import Pair, Scores, Warn, pair_up, read_rows
from quantlab.records.several import Stored
from quantlab.records.storage import cells_dir
from quantlab.stats.bootstrap import p_value
from quantlab.stats.estimate import Estimate, Interval
from quantlab.stats.paired import ALPHA, holm
from quantlab.stats.rates import Counts, Sample, by_rule_of_three, resample

_TICKS_PER_S = 16_000  # lengths are whole numbers of samples, so that sums are exact
_PER_MIN = 60.0 * _TICKS_PER_S


@dataclass(frozen=True)
class NonspeechComparison:
    """Words per minute without speech, minus the reference's, over all splits."""

    difference: Estimate
    p: float
    p_holm: float  # over the cells of the report whose words per minute are compared
    verdict: More
    unit: Literal["speaker", "utterance"]
    units: int
    utterances: int


@dataclass(frozen=True)
class NonspeechEvidence:
    """Intervals of words per minute, and the comparison; None if absent."""

    ci95: Interval | None = None  # over all splits
    splits: dict[str, Interval | None] = field(default_factory=dict)
    comparison: NonspeechComparison | None = None


class _Found(NamedTuple):
    splits: dict[str, Estimate]
    pooled: Estimate
    p: float


def nonspeech_evidence(
    found: Iterable[Stored], references: Mapping[str, str], resamples: Mapping[str, int], warn: Warn
) -> dict[str, NonspeechEvidence]:
    """Evidence of every measured cell that has audio without speech, by cell id.

    Args:
        found: the cells, including their references.
        references: cell id → id of the cell to compare with.
        resamples: cell id → number of resamples.
        warn: called for cells whose utterances differ from the reference's.
    """
    scores = {item.record.cell_id: read for item in found if (read := _scores(item)) is not None}
    pairs = pair_up(scores, references, warn)
    differences = {cell_id: _rates(pair.sample, *_changed(pair), resamples[cell_id]) for cell_id, pair in pairs.items()}
    corrected = dict(zip(differences, holm([item.p for item in differences.values()]), strict=True))
    result = {}
    for cell_id, (sample, counts, _) in scores.items():
        own = _rates(sample, counts, counts.words > 0, None, resamples[cell_id])
        result[cell_id] = NonspeechEvidence(own.pooled.ci95, {name: item.ci95 for name, item in own.splits.items()})
        if cell_id in differences:
            change, pair = differences[cell_id], pairs[cell_id]
            result[cell_id] = replace(
                result[cell_id],
                comparison=_comparison(change, corrected[cell_id], pair.sample),
            )
    return result


def _scores(stored: Stored) -> Scores | None:
    """Words and lengths of the audio without speech; None without any. Unreadable files are reported with the WER."""
    record = stored.record
    if record.status != "ok" or all(split.nonspeech_s is None for split in record.splits.values()):
        return None
    try:
        rows = read_rows(cells_dir(stored.root) / record.cell_id / "utterances.jsonl")
        rows = [row for row in rows if row.get("nonspeech") and row["hypothesis"] is not None]
        words = np.array([_whole(row["insertions"]) for row in rows], dtype=np.int64)
        ticks = tuple(round(row["audio_s"] * _TICKS_PER_S) for row in rows)
        sample = Sample(
            splits=tuple(row["split"] for row in rows),
            ids=tuple(row["id"] for row in rows),
            speakers=tuple(row["speaker"] for row in rows),
            words=ticks,
            chars=ticks,
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    if sum(words) != sum(split.nonspeech_words or 0 for split in record.splits.values()) or not rows:
        return None
    return Scores(sample, Counts(words, words), Events(None, (words == 0).astype(np.int64), None, None))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"insertions={value!r} is not a whole number from 0")
    return value


def _changed(pair: Pair) -> tuple[Counts, Any, Any]:
    words = pair.cell.words - pair.reference.words
    return Counts(words, words), words > 0, words < 0


def _rates(sample: Sample, counts: Counts, more: Any, fewer: Any, resamples: int) -> _Found:
    """Words per minute or (`fewer` given) their difference; `more`, `fewer`: utterances with more or fewer words."""
    [found] = resample(sample, [counts], resamples)
    splits, ticks = np.array(sample.splits), np.array(sample.words)
    total = sum(counts.words.tolist())

    def bounded(rate: Estimate | None, chosen: Any) -> Estimate:
        assert rate is not None  # audio has a length
        seen = bool(more[chosen].any()), fewer is None or bool(fewer[chosen].any())
        return by_rule_of_three(rate, float(ticks[chosen].sum()), *seen).times(_PER_MIN)

    rate = found.pooled.wer
    assert rate is not None
    p = p_value(found.samples, rate.value, sample.units.count) if rate.ci95 and total else 1.0
    return _Found(
        {name: bounded(rates.wer, splits == name) for name, rates in found.splits.items()},
        bounded(rate, slice(None)),
        p,
    )


def _comparison(change: _Found, p_holm: float, sample: Sample) -> NonspeechComparison:
    more: More = "more" if change.pooled.value > 0 else "fewer"
    return NonspeechComparison(
        difference=change.pooled,
        p=change.p,
        p_holm=p_holm,
        verdict=more if p_holm < ALPHA and change.pooled.value != 0 else "not shown",
        unit=sample.units.kind,
        units=sample.units.count,
        utterances=len(sample.ids),
    )
