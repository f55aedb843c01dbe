"""Hypotheses of every cell against those of its baseline or other reference, worst regressions first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from quantlab.records import storage
from quantlab.records.schema import Record, Utterance
from quantlab.report.cell_summary import CellSummary
from quantlab.report.html import clips
from quantlab.scoring.normalise import NORMALISERS
from quantlab.scoring.score import Scoring


class Key(NamedTuple):
    """Identity of an utterance as scored; the same for all cells measured on it."""

    split: str
    id: str
    reference: str
    scoring: Scoring


class Hypothesis(NamedTuple):
    """One hypothesis of one cell, with its errors."""

    key: Key
    text: str
    errors: int  # words
    extra_errors: int  # errors minus the reference cell's; 0 without one


@dataclass(frozen=True)
class Cell:
    """Hypotheses of a cell to show: those that differ from the reference cell's or, without one, have errors."""

    id: str
    compared_with: str | None  # id of the reference cell; None also for such a cell itself
    hypotheses: tuple[Hypothesis, ...]  # worst first
    utterances: int
    worse: int  # utterances with more errors than the reference cell's
    better: int


@dataclass
class Corpus:
    """All utterances that any cell was measured on, without hypotheses."""

    known: dict[Key, Utterance] = field(default_factory=dict)
    audio: dict[Key, str] = field(default_factory=dict)  # file: URI
    folders: tuple[Path, ...] = ()  # folders whose audio may be played

    def add(self, key: Key, utterance: Utterance, places: dict[str, str]) -> None:
        """Add an utterance and the URI of its audio, unless it is already known."""
        if key not in self.known:
            self.known[key] = utterance.model_copy(update={"hypothesis": None})
            if utterance.id in places:
                self.audio[key] = places[utterance.id]


def compared_cells(found: Sequence[CellSummary], corpus: Corpus) -> Iterator[Cell]:
    """The hypotheses to show of each cell; fills `corpus` in place.

    Cells that others are compared with are read first and stay in memory; of other cells, only the hypotheses that
    differ do.

    Args:
        found: measured cells.
        corpus: changed in place.
    """
    references: dict[str, dict[Key, Hypothesis]] = {}
    for row in sorted(found, key=lambda row: not row.is_reference):
        record, other = row.record, row.reference
        own = _read(row.root, record, corpus)
        if own is None:
            continue
        if record.cell_id == other:
            references[other] = own
            yield _alone(record, own.values(), len(own))
        elif other in references:
            yield _compared(record, other, own, references[other])
        else:
            yield _alone(record, (item for item in own.values() if item.errors), len(own))


def _read(root: Path, record: Record, corpus: Corpus) -> dict[Key, Hypothesis] | None:
    """The hypotheses of a record; None without text: random weights, or an unreadable file."""
    if record.normaliser not in NORMALISERS:  # written by another version
        return None
    try:
        utterances = storage.read_utterances(root, record.cell_id)
    except (OSError, ValueError):
        return None
    places = clips.uris(record.config.get("dataset") or {}, record.fingerprints.get("corpus"), corpus.folders)
    scoring = Scoring.of_record(record)
    own = {}
    for item in utterances:
        if item.hypothesis is None:
            return None
        key = Key(item.split, item.id, item.reference, scoring)
        corpus.add(key, item, places)
        own[key] = Hypothesis(key, item.hypothesis, item.errors or 0, 0)
    return own


def _alone(record: Record, shown: Iterable[Hypothesis], utterances: int) -> Cell:
    ordered = sorted(shown, key=lambda item: -item.errors)
    return Cell(record.cell_id, None, tuple(ordered), utterances, worse=0, better=0)


def _compared(record: Record, other: str, own: dict[Key, Hypothesis], base: dict[Key, Hypothesis]) -> Cell:
    shown = [
        item._replace(extra_errors=item.errors - base[key].errors)
        for key, item in own.items()
        if key in base and base[key].text != item.text
    ]
    return Cell(
        record.cell_id,
        other,
        tuple(sorted(shown, key=lambda item: (-item.extra_errors, -item.errors))),
        len(own),
        worse=sum(item.extra_errors > 0 for item in shown),
        better=sum(item.extra_errors < 0 for item in shown),
    )
