"""What every cell heard, against what its baseline heard, the worst regressions first."""

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
    """An utterance as it was scored: the same for every cell that was measured on it."""

    split: str
    id: str
    reference: str
    scoring: Scoring


class Heard(NamedTuple):
    """One hypothesis of one cell."""

    key: Key
    text: str
    errors: int  # words
    more: int  # errors − the baseline's; 0 where there is none


@dataclass(frozen=True)
class Cell:
    """What a cell heard that is worth showing: what the baseline heard otherwise, or has errors if there is none."""

    id: str
    baseline: str | None  # None for a baseline itself, too
    heard: tuple[Heard, ...]  # the worst first
    utterances: int
    worse: int  # utterances with more errors than the baseline's
    better: int


@dataclass
class Corpus:
    """Every utterance that any cell was measured on, without what it was heard as."""

    known: dict[Key, Utterance] = field(default_factory=dict)
    audio: dict[Key, str] = field(default_factory=dict)  # file: URI
    folders: tuple[Path, ...] = ()  # where audio may be

    def add(self, key: Key, utterance: Utterance, places: dict[str, str]) -> None:
        """Remember an utterance, and where its audio lies, if it is the first of its kind."""
        if key not in self.known:
            self.known[key] = utterance.model_copy(update={"hypothesis": None})
            if utterance.id in places:
                self.audio[key] = places[utterance.id]


def heard(found: Sequence[CellSummary], corpus: Corpus) -> Iterator[Cell]:
    """What each cell heard; `corpus` is filled on the way.

    Baselines come first and stay in memory; of the other cells only what differs from them does.

    Args:
        found: cells that ended well.
        corpus: is changed in place.
    """
    baselines: dict[str, dict[Key, Heard]] = {}
    for row in sorted(found, key=lambda row: not row.is_baseline):
        record, baseline = row.record, row.baseline
        own = _read(row.root, record, corpus)
        if own is None:
            continue
        if record.cell_id == baseline:
            baselines[baseline] = own
            yield _alone(record, own.values(), len(own))
        elif baseline in baselines:
            yield _compared(record, baseline, own, baselines[baseline])
        else:
            yield _alone(record, (item for item in own.values() if item.errors), len(own))


def _read(root: Path, record: Record, corpus: Corpus) -> dict[Key, Heard] | None:
    """None where there is no text: random weights, or a file that cannot be read."""
    if record.normaliser not in NORMALISERS:  # of another version
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
        own[key] = Heard(key, item.hypothesis, item.errors or 0, 0)
    return own


def _alone(record: Record, shown: Iterable[Heard], utterances: int) -> Cell:
    ordered = sorted(shown, key=lambda item: -item.errors)
    return Cell(record.cell_id, None, tuple(ordered), utterances, worse=0, better=0)


def _compared(record: Record, baseline: str, own: dict[Key, Heard], base: dict[Key, Heard]) -> Cell:
    shown = [
        item._replace(more=item.errors - base[key].errors)
        for key, item in own.items()
        if key in base and base[key].text != item.text
    ]
    return Cell(
        record.cell_id,
        baseline,
        tuple(sorted(shown, key=lambda item: (-item.more, -item.errors))),
        len(own),
        worse=sum(item.more > 0 for item in shown),
        better=sum(item.more < 0 for item in shown),
    )
