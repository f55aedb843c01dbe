"""From raw samples to the figures of a split, by DESIGN's definitions. No torch: `report` and `verify` use it too."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from quantlab.record import Batch, SplitResult, Utterance

P90_SAMPLES = 64  # fewer samples say nothing about the slowest tenth
P99_SAMPLES = 662  # …or about the slowest hundredth


def split_result(utterances: Sequence[Utterance], batches: Sequence[Batch]) -> SplitResult:
    """The figures of one split.

    Args:
        utterances: its scored utterances, at least one.
        batches: its timed batches, at least one.
    """
    audio_s = sum(batch.audio_s for batch in batches)
    generate_s = sum(batch.elapsed_s for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    latencies_s = sorted(batch.elapsed_s for batch in batches)
    return SplitResult(
        utterances=len(utterances),
        audio_s=audio_s,
        generate_s=generate_s,
        tokens=tokens,
        rtf=generate_s / audio_s,
        tokens_per_s=tokens / generate_s,
        latency_p50_s=statistics.median(latencies_s),
        latency_p90_s=_percentile(latencies_s, 90) if len(latencies_s) >= P90_SAMPLES else None,
        latency_p99_s=_percentile(latencies_s, 99) if len(latencies_s) >= P99_SAMPLES else None,
        **_accuracy(utterances),
    )


def _percentile(sorted_values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(sorted_values, n=100, method="inclusive")[percent - 1]


def _accuracy(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Corpus-level error rates with their counts; nothing where weights are random."""
    if any(item.hypothesis is None for item in utterances):
        return {}
    total = {
        name: sum(getattr(item, name) for item in utterances)
        for name in ("substitutions", "deletions", "insertions", "hits", "char_errors", "ref_chars")
    }
    errors = total["substitutions"] + total["deletions"] + total["insertions"]
    ref_words = total["substitutions"] + total["deletions"] + total["hits"]
    return total | {
        "ref_words": ref_words,
        "wer": errors / ref_words if ref_words else None,
        "cer": total["char_errors"] / total["ref_chars"] if total["ref_chars"] else None,
        "empty_share": sum(not item.hypothesis for item in utterances) / len(utterances),
        "loop_share": sum(bool(item.loop) for item in utterances) / len(utterances),
    }
