"""Alignment of a normalised hypothesis with its reference, word by word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jiwer
import kaldialign

from quantlab.records.measured import BURST

_NOTHING = "\0"  # no text holds it, see `normalise.plain`


class Step(NamedTuple):
    """One step: words of the reference [from, to), words of the hypothesis [from, to), whether the two are equal.

    A deletion has no words of the hypothesis, an insertion none of the reference; other steps have one of each, and
    compounds that are equal when joined have several on one side.
    """

    spoken_from: int
    spoken_to: int
    written_from: int
    written_to: int
    right: bool


@dataclass(frozen=True)
class Alignment:
    """Edit counts and steps of an alignment."""

    substitutions: int
    deletions: int
    insertions: int
    steps: tuple[Step, ...]  # in the order of both texts

    @property
    def burst_words(self) -> int:
        """Deleted words in runs of at least `BURST`."""
        return sum(run for run in self._deleted_runs() if run >= BURST)

    def _deleted_runs(self) -> Iterator[int]:
        run = 0
        for step in self.steps:
            if step.written_from == step.written_to:
                run += step.spoken_to - step.spoken_from
            else:
                yield run
                run = 0
        yield run


def align(spoken: Sequence[str], written: Sequence[str], scorer: str) -> Alignment:
    """Align two texts.

    `kaldialign_compounds` is the scorer of the Open ASR Leaderboard since June 2026: adjacent words that form one word
    of the other side when joined ("white paper", "whitepaper") are correct. Any other name is plain edit distance.

    Args:
        spoken: words of the reference, at least one.
        written: words of the hypothesis.
        scorer: see `score.SCORERS`.
    """
    if scorer == "kaldialign_compounds":
        found = kaldialign.batch_error_rate([spoken], [written], merge_compounds=True)
        pairs = kaldialign.align(spoken, written, _NOTHING, merge_compounds=True)
        return Alignment(int(found["sub"]), int(found["del"]), int(found["ins"]), tuple(_of_pairs(pairs)))
    words = jiwer.process_words(" ".join(spoken), " ".join(written))
    return Alignment(words.substitutions, words.deletions, words.insertions, tuple(_of_chunks(words.alignments[0])))


def _of_chunks(chunks: Iterable[jiwer.AlignmentChunk]) -> Iterator[Step]:
    for chunk in chunks:
        spoken = range(chunk.ref_start_idx, chunk.ref_end_idx)
        written = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        for place in range(max(len(spoken), len(written))):
            here, there = spoken.start + place, written.start + place
            yield Step(
                here if spoken else spoken.start,
                here + 1 if spoken else spoken.start,
                there if written else written.start,
                there + 1 if written else written.start,
                chunk.type == "equal",
            )


def _of_pairs(pairs: Iterable[tuple[str, str]]) -> Iterator[Step]:
    """From kaldialign, which joins the words of a compound by spaces."""
    here = there = 0
    for spoken, written in pairs:
        right = spoken.replace(" ", "") == written.replace(" ", "")
        before = here, there
        here += 0 if spoken == _NOTHING else len(spoken.split(" "))
        there += 0 if written == _NOTHING else len(written.split(" "))
        yield Step(before[0], here, before[1], there, right)
