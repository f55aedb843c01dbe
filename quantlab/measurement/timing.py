"""Timing of one engine call on one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quantlab.data.speech import SplitBatch
from quantlab.engines import Engine, windows_of
from quantlab.engines.alignment import TimesWords
from quantlab.records.schema import Batch, Work

Side = Literal["cell", "baseline"]


def free_running(
    decoder: Engine, part: SplitBatch, side: Side = "cell", block: int | None = None
) -> tuple[Batch, list[list[int]]]:
    """Time a free-running `generate`; returns the timing and the token ids of each utterance."""
    rows, elapsed_s = decoder.generate(part.speech)
    return _call(part, "natural", _count(rows), elapsed_s, side, block), rows


def timed(decoder: Engine, part: SplitBatch, work: Work, side: Side, block: int | None = None) -> Batch:
    """Time one call: free-running, encoder only, or fixed-length decoding."""
    if work == "natural":
        return free_running(decoder, part, side, block)[0]
    if work == "encoder":
        return _call(part, work, 0, decoder.encode(part.speech), side, block)
    tokens = decoder.decoding.forced_tokens * len(part.speech.ids)
    return _call(part, work, tokens, decoder.decode(part.speech), side, block)


def aligned(decoder: TimesWords, part: SplitBatch, rows: Sequence[Sequence[int]]) -> tuple[Batch, list[list[float]]]:
    """Time the alignment of decoded tokens; returns the timing and the times of each utterance's tokens."""
    starts, elapsed_s = decoder.align(part.speech, rows)
    return _call(part, "align", sum(map(len, rows)), elapsed_s, "cell", None), starts


def _count(rows: list[list[int]]) -> int:
    return sum(len(window) for row in rows for window in windows_of(row))


def _call(part: SplitBatch, work: Work, tokens: int, elapsed_s: float, side: Side, block: int | None) -> Batch:
    return Batch(
        split=part.split,
        index=part.index,
        utterances=len(part.speech.ids),
        audio_s=float(sum(part.speech.new_s)),
        tokens=tokens,
        elapsed_s=elapsed_s,
        of=side,
        work=work,
        block=block,
    )
