"""Texts of the page, word by word, as many as fit into its size limit.

A reference is stored once for all cells, a hypothesis only if it differs from that of the cell it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.report.cell_summary import CellSummary
from quantlab.report.html.align import alignments
from quantlab.report.html.hypotheses import Cell, Corpus, Hypothesis, Key, compared_cells
from quantlab.report.html.payload import packed
from quantlab.scoring.score import Scoring

# Hypotheses per cell, tried in this order; round numbers, as "the worst 500" reads better than an exact limit.
STEPS = (1_000_000, 5000, 3000, 2000, 1500, 1000, 700, 500, 200, 100, 50, 20, 10, 5, 2, 1, 0)
# First estimate, so that no time is spent on aligning far too many texts; the final size is measured.
_PER_LETTER = 0.4  # characters of page per character of English, compressed and base64-encoded
_PER_ENTRY = 12


@dataclass(frozen=True)
class Texts:
    """The text blocks of a page: utterances, shared by all cells, and the hypotheses of each cell."""

    utterances: str
    cells: dict[str, str]

    @property
    def size(self) -> int:
        """Characters of the page that the blocks take."""
        return len(self.utterances) + sum(map(len, self.cells.values()))


def fitted(found: Sequence[CellSummary], budget: int, audio: tuple[Path, ...] = ()) -> Texts:
    """Select the worst utterances of each cell, as many as fit into `budget` characters of page.

    Args:
        found: measured cells.
        budget: characters of the page available for texts.
        audio: see `page`.
    """
    corpus = Corpus(folders=audio)
    cells = list(compared_cells(found, corpus))
    scored = _Scored()
    for most in STEPS:
        if _guess(cells, most) <= budget:
            made = _build(cells, corpus, most, scored)
            if made.size <= budget:
                break
    return made


def _guess(cells: Sequence[Cell], most: int) -> float:
    shown = [item.text for cell in cells if cell.compared_with for item in cell.hypotheses[:most]]
    return sum(map(len, shown)) * _PER_LETTER + len(shown) * _PER_ENTRY


def _build(cells: Sequence[Cell], corpus: Corpus, most: int, scored: _Scored) -> Texts:
    shown = _shown(cells, most)
    keys = dict.fromkeys(item.key for items in shown.values() for item in items)
    index = {key: number for number, key in enumerate(keys)}
    return Texts(
        utterances=packed([_utterance(key, corpus, scored) for key in keys]),
        cells={cell.id: packed(_cell(cell, shown[cell.id], index, scored)) for cell in cells},
    )


def _shown(cells: Sequence[Cell], most: int) -> dict[str, tuple[Hypothesis, ...]]:
    """The worst hypotheses of each cell; also those that hypotheses shown of others are compared with."""
    shown = {cell.id: cell.hypotheses[:most] for cell in cells}
    needed: dict[str, set[Key]] = {}
    for cell in cells:
        if cell.compared_with is not None:
            needed.setdefault(cell.compared_with, set()).update(item.key for item in shown[cell.id])
    for cell in cells:
        if cell.id in needed:
            wanted = needed[cell.id] | {item.key for item in shown[cell.id]}
            shown[cell.id] = tuple(item for item in cell.hypotheses if item.key in wanted)
    return shown


def _cell(cell: Cell, shown: Sequence[Hypothesis], index: dict[Key, int], scored: _Scored) -> dict[str, Any]:
    marks = scored.alignments(shown)
    return {
        "compared_with": cell.compared_with,
        "utterances": cell.utterances,
        "differing": sum(cell.compared_with is not None or item.errors > 0 for item in cell.hypotheses),
        "worse": cell.worse,
        "better": cell.better,
        # utterance, text as scored, raw text if it differs, alignment
        "hypotheses": [
            [index[item.key], *_scored_and_written(scored.text(item.key, item.text), item.text), mark]
            for item, mark in zip(shown, marks, strict=True)
        ],
    }


def _utterance(key: Key, corpus: Corpus, scored: _Scored) -> list[object]:
    known = corpus.known[key]
    return [
        key.id,
        key.split,
        known.speaker,
        round(known.audio_s, 2),
        corpus.audio.get(key),
        *_scored_and_written(scored.text(key, key.reference), key.reference),
    ]


def _scored_and_written(scored: str, written: str) -> tuple[str, str | None]:
    return scored, None if scored == written else written


class _Scored:
    """Cache of scored texts and alignments, as many hypotheses of a grid are equal."""

    def __init__(self) -> None:
        self._texts: dict[tuple[Scoring, str], str] = {}
        self._marks: dict[tuple[str, str], str] = {}

    def text(self, key: Key, text: str) -> str:
        """The scored units (words or characters) of a text, joined by spaces."""
        found = (key.scoring, text)
        if found not in self._texts:
            self._texts[found] = " ".join(key.scoring.units(text))
        return self._texts[found]

    def alignments(self, items: Sequence[Hypothesis]) -> list[str]:
        """See `align.alignments`."""
        pairs = [(self.text(item.key, item.key.reference), self.text(item.key, item.text)) for item in items]
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in self._marks]
        self._marks |= dict(zip(missing, alignments(missing), strict=True))
        return [self._marks[pair] for pair in pairs]
