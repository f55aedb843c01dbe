"""Streamed minus whole: the error rate that streaming costs a cell, with intervals over the same utterances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from quantlab.analysis.pairs import Scores, Warn
from quantlab.records import storage
from quantlab.records.several import Stored
from quantlab.stats.estimate import Estimate
from quantlab.stats.rates import Counts, by_rule_of_three, resample


@dataclass(frozen=True)
class StreamingEvidence:
    """WER of the streamed texts − WER of the same utterances decoded whole in the same cell; fractions."""

    increase: Estimate  # over all splits
    splits: dict[str, Estimate]


def streaming_evidence(
    found: Iterable[Stored], scores: Mapping[str, Scores], resamples: Mapping[str, int], warn: Warn
) -> dict[str, StreamingEvidence]:
    """The differences of every cell with streams, by cell id.

    Args:
        found: the cells.
        scores: counts of the utterances decoded whole, by cell id.
        resamples: cell id → number of resamples.
        warn: called for streams that cannot be read, or do not fit their record.
    """
    result = {}
    for stored in found:
        cell_id = stored.record.cell_id
        if stored.record.streaming is None or cell_id not in scores:
            continue
        try:
            result[cell_id] = _evidence(stored, scores[cell_id], resamples[cell_id])
        except (OSError, ValueError) as error:
            path = storage.real_path(storage.cells_dir(stored.root) / cell_id / storage.STREAMS)
            warn(f"{path} cannot be read, so its streaming has no interval: {error}")
    return result


def _evidence(stored: Stored, whole: Scores, resamples: int) -> StreamingEvidence:
    """The differences of one cell.

    Raises:
        ValueError: the streams are not those of the record.
        OSError: they cannot be read.
    """
    streams = storage.read_streams(stored.root, stored.record.cell_id)
    errors = {(item.split, item.id): item.substitutions + item.deletions + item.insertions for item in streams}
    keys = list(zip(whole.sample.splits, whole.sample.ids, strict=True))
    if missing := [key for key in keys if key not in errors]:
        raise ValueError(f"no stream of utterance {missing[0][1]}")
    streamed, figures = np.array([errors[key] for key in keys], dtype=np.int64), stored.record.streaming
    assert figures is not None
    if int(streamed.sum()) != figures.substitutions + figures.deletions + figures.insertions:
        raise ValueError("its counts do not add up to those in record.json")
    change = streamed - whole.counts.words
    [rates] = resample(whole.sample, [Counts(change, change)], resamples)
    splits, words = np.array(whole.sample.splits), np.array(whole.sample.words)

    def bounded(rate: Estimate | None, chosen: np.ndarray) -> Estimate | None:
        if rate is None:
            return None
        more, fewer = bool((change[chosen] > 0).any()), bool((change[chosen] < 0).any())
        return by_rule_of_three(rate, float(words[chosen].sum()), more, fewer)

    pooled = bounded(rates.pooled.wer, np.ones(len(keys), dtype=bool))
    if pooled is None:
        raise ValueError("no reference has a word")
    by_split = {name: bounded(rate.wer, splits == name) for name, rate in rates.splits.items()}
    return StreamingEvidence(pooled, {name: found for name, found in by_split.items() if found is not None})
