"""Word alignment of hypotheses with references, encoded compactly so that a page can hold thousands."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer

_LETTERS = {"equal": "e", "substitute": "s", "delete": "d", "insert": "i"}


def alignments(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Alignments as runs of equal, substituted, deleted and inserted words, e.g. `e5s1d2`.

    Args:
        pairs: reference and hypothesis, both normalised as for scoring.
    """
    spoken = [pair for pair in pairs if pair[0]]  # jiwer rejects empty references
    found = iter(jiwer.process_words([a for a, _ in spoken], [b for _, b in spoken]).alignments if spoken else ())
    return [_runs(next(found)) if reference else _inserted(hypothesis) for reference, hypothesis in pairs]


def _runs(chunks: Sequence[jiwer.AlignmentChunk]) -> str:
    return "".join(f"{_LETTERS[chunk.type]}{_length(chunk)}" for chunk in chunks)


def _length(chunk: jiwer.AlignmentChunk) -> int:
    return max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)


def _inserted(hypothesis: str) -> str:
    words = len(hypothesis.split())
    return f"i{words}" if words else ""
