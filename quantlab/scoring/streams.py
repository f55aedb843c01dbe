"""Error counts of the final texts of streams."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantlab.records.schema import Stream, Utterance
from quantlab.scoring.score import Scoring, count

COUNTS = ("substitutions", "deletions", "insertions", "hits")


def stream_counts(reference: str, hypothesis: str, scoring: Scoring) -> dict[str, int]:
    """The error counts that a stream has."""
    found = count(reference, hypothesis, scoring)
    return {name: getattr(found, name) for name in COUNTS}


def recounted(streams: Sequence[Stream], utterances: Iterable[Utterance], scoring: Scoring) -> tuple[Stream, ...]:
    """The streams with counts by another normaliser or scorer.

    Raises:
        ValueError: the utterance of a stream is missing.
    """
    references = {(item.split, item.id): item.reference for item in utterances}
    if unknown := [item.id for item in streams if (item.split, item.id) not in references]:
        raise ValueError(f"stream {unknown[0]} is of no utterance")
    return tuple(
        item.model_copy(update=stream_counts(references[item.split, item.id], item.hypothesis, scoring))
        for item in streams
    )
