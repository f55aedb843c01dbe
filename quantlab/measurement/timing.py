"""One timed call: a batch goes in, its raw timing comes out."""

from __future__ import annotations

from typing import Literal

from quantlab.data.speech import Piece
from quantlab.engines import Engine, windows_of
from quantlab.records.schema import Batch, Work

Side = Literal["cell", "baseline"]


def natural(
    decoder: Engine, piece: Piece, side: Side = "cell", block: int | None = None
) -> tuple[Batch, list[list[int]]]:
    """`generate` as it comes: the timing and the token ids of each utterance."""
    rows, elapsed_s = decoder.generate(piece.speech)
    return _call(piece, "natural", _count(rows), elapsed_s, side, block), rows


def timed(decoder: Engine, piece: Piece, work: Work, side: Side, block: int | None = None) -> Batch:
    """One call at natural work, or of the encoder alone, or of decoding a forced number of tokens."""
    if work == "natural":
        return natural(decoder, piece, side, block)[0]
    if work == "encoder":
        return _call(piece, work, 0, decoder.encode(piece.speech), side, block)
    tokens = decoder.decoding.forced_tokens * len(piece.speech.ids)
    return _call(piece, work, tokens, decoder.decode(piece.speech), side, block)


def _count(rows: list[list[int]]) -> int:
    return sum(len(window) for row in rows for window in windows_of(row))


def _call(piece: Piece, work: Work, tokens: int, elapsed_s: float, side: Side, block: int | None) -> Batch:
    return Batch(
        split=piece.split,
        index=piece.index,
        utterances=len(piece.speech.ids),
        audio_s=float(sum(piece.speech.new_s)),
        tokens=tokens,
        elapsed_s=elapsed_s,
        of=side,
        work=work,
        block=block,
    )
