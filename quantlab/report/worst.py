"""The utterances of cells that became worse than with the reference, worst first, word by word."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from quantlab.records import storage
from quantlab.report.cell_summary import CellSummary
from quantlab.report.html.hypotheses import Corpus, Hypothesis, Key, compared_cells
from quantlab.report.wording import between, names, percent
from quantlab.scoring.alignment import align
from quantlab.scoring.score import Scoring
from quantlab.stats.estimate import Estimate
from quantlab.util.counted import counted
from quantlab.util.printable import printable


@dataclass(frozen=True)
class Worse:
    """An utterance with more errors than with the reference cell; texts as scored, with the errors marked."""

    id: str
    split: str
    errors: int
    reference_errors: int  # of the cell that is compared with
    reference: str  # what was said
    hypothesis: str
    reference_hypothesis: str


@dataclass(frozen=True)
class Regressions:
    """The worst utterances of a cell."""

    cell_id: str
    cell: str
    compared_with: str
    not_worse: Estimate | None  # share of utterances
    worse: int  # utterances
    of: int  # utterances that were compared
    worst: tuple[Worse, ...]

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        found = self.not_worse
        share = None if found is None else {"share": found.value, "ci95": found.ci95 and list(found.ci95)}
        return asdict(self) | {"not_worse": share}


def regressions(rows: Sequence[CellSummary], wanted: Sequence[str], most: int) -> Iterator[Regressions]:
    """The worst utterances of the wanted cells that are compared with another.

    Args:
        rows: the cells, with those that they are compared with.
        wanted: cell ids.
        most: utterances of each cell.
    """
    called = names(rows)
    by_id = {row.cell_id: row for row in rows}
    needed = {*wanted, *(by_id[cell_id].reference for cell_id in wanted)}
    for cell in compared_cells([row for row in rows if row.ok and row.cell_id in needed], Corpus()):
        if cell.compared_with is not None and cell.id in wanted:
            row = by_id[cell.id]
            worse = [item for item in cell.hypotheses if item.extra_errors > 0]
            before = _texts(by_id[cell.compared_with], {item.key for item in worse[:most]})
            yield Regressions(
                cell.id,
                called[cell.id],
                called[cell.compared_with],
                row.evidence.no_regression,
                cell.worse,
                cell.utterances,
                tuple(_worse(item, before[item.key]) for item in worse[:most]),
            )


def _texts(row: CellSummary, keys: set[Key]) -> dict[Key, str]:
    scoring = Scoring.of_record(row.record)
    found = {
        Key(item.split, item.id, item.reference, scoring): item.hypothesis or ""
        for item in storage.read_utterances(row.root, row.cell_id)
    }
    return {key: found[key] for key in keys}


def _worse(item: Hypothesis, before: str) -> Worse:
    key = item.key
    return Worse(
        id=key.id,
        split=key.split,
        errors=item.errors,
        reference_errors=item.errors - item.extra_errors,
        reference=_joined(key, key.scoring.units(key.reference)),
        hypothesis=marked(key, item.text),
        reference_hypothesis=marked(key, before),
    )


def marked(key: Key, text: str) -> str:
    """A hypothesis as scored, with errors marked as `git diff --word-diff` does: `[-missing-]`, `{+extra+}`."""
    spoken, written = key.scoring.units(key.reference), key.scoring.units(text)
    if not spoken:
        return f"{{+{_joined(key, written)}+}}" if written else ""
    parts = []
    for right, steps in groupby(align(spoken, written, key.scoring.scorer).steps, lambda step: step.right):
        run = list(steps)
        said = spoken[run[0].spoken_from : run[-1].spoken_to]
        heard = written[run[0].written_from : run[-1].written_to]
        missing = f"[-{_joined(key, said)}-]" if said and not right else ""
        extra = f"{{+{_joined(key, heard)}+}}" if heard and not right else ""
        parts.append(_joined(key, heard) if right else missing + extra)
    return _joined(key, parts)


def _joined(key: Key, units: Sequence[str]) -> str:
    return (" " if key.scoring.unit == "word" else "").join(units)


def to_json(found: Sequence[Regressions]) -> str:
    """One JSON list, an object per cell."""
    return json.dumps([item.to_dict() for item in found], indent=1, allow_nan=False) + "\n"


def to_text(found: Sequence[Regressions]) -> str:
    """For a terminal."""
    return "\n".join("\n".join(_lines(item)) + "\n" for item in found)


def _lines(item: Regressions) -> Iterator[str]:
    yield printable(_heading(item))
    for one in item.worst:
        yield printable(
            f"  {one.split}/{one.id}: {one.errors} errors, {one.reference_errors} with {item.compared_with}"
        )
        for who, text in _texts_of(item, one):
            yield printable(f"    {who}: {text}")


def to_markdown(found: Sequence[Regressions]) -> str:
    """A section per cell, a table of the texts per utterance."""
    return "\n".join(line for item in found for line in _markdown(item)) + "\n"


def _markdown(item: Regressions) -> Iterator[str]:
    yield f"## {printable(_heading(item))}\n"
    for one in item.worst:
        yield f"### {printable(f'{one.split}/{one.id}')}: {one.errors} errors, before {one.reference_errors}\n"
        yield "| | |\n|---|---|"
        yield from (f"| {who} | `{printable(text).replace('`', chr(39)).replace('|', ' ')}` |" for who, text in
                    _texts_of(item, one))  # fmt: skip
        yield ""


def _heading(item: Regressions) -> str:
    share = item.not_worse
    of = "of those with words not worse"
    what = "" if share is None else f"{percent(share.value)} %{between(share.ci95, percent)} {of}; "
    return f"{item.cell} against {item.compared_with}: {what}{item.worse:,} of {counted(item.of, 'utterance')} worse"


def _texts_of(item: Regressions, one: Worse) -> list[tuple[str, str]]:
    return [
        ("reference", one.reference),
        (item.compared_with, one.reference_hypothesis or "(empty)"),
        (item.cell, one.hypothesis or "(empty)"),
    ]
