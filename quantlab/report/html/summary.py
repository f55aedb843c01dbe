"""Data for the charts: figures of every cell with intervals and descriptions, and the Pareto fronts."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quantlab.report import against, ranking, word_times, wording
from quantlab.report.cell_summary import CellSummary
from quantlab.report.front import Candidate, Front, front
from quantlab.report.hidden import NAMES, keyword_facts, shown
from quantlab.report.ranking import Figure
from quantlab.report.wording import between, estimate, megabytes, percent, points, three_digits
from quantlab.stats.estimate import Estimate

POOLED = "all"  # name of the pooled figures among the splits
COSTS: dict[str, Figure] = {  # possible x axes of the scatter plot
    "rtf": ranking.rtf,
    "ratio": ranking.time_ratio,
    "size": lambda row: None if row.size_bytes is None else Estimate(row.size_bytes),
}


@dataclass(frozen=True)
class Group:
    """Cells with comparable WER and time: same corpus, same device."""

    label: str
    rows: tuple[CellSummary, ...]

    @property
    def measured(self) -> list[CellSummary]:
        return [row for row in self.rows if row.ok]

    @property
    def reference(self) -> str | None:
        """The reference that all cells share, if any; sampling error of the corpus cancels in differences to it."""
        found = {row.reference for row in self.measured}
        return found.pop() if len(found) == 1 else None

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(split for row in self.rows for split in row.splits))


def groups(rows: Sequence[CellSummary]) -> list[Group]:
    """Groups of comparable cells, the one with most measured cells first.

    Different corpora of one name (`dataset.limit=40`, an edited manifest) are distinguished by their fingerprint.
    """
    found: dict[tuple[str, Hashable], list[CellSummary]] = {}
    for row in sorted(rows, key=lambda row: row.corpus.fingerprint is None):
        key = (str(row.settings.device), row.named.corpus_key)
        alike = [other for other in found if (other[0], found[other][0].dataset) == (key[0], row.dataset)]
        # a cell that failed before its corpus was read fits any corpus of that name
        lost = row.corpus.fingerprint is None and alike
        found.setdefault(alike[0] if lost else key, []).append(row)
    named = wording.corpora([row for row in rows if row.splits] or rows)
    made = [Group(_group_label(some, named), tuple(some)) for some in found.values()]
    return sorted(made, key=lambda group: -len(group.measured))


def _group_label(rows: Sequence[CellSummary], named: Mapping[str, str]) -> str:
    corpus = next((named[row.cell_id] for row in rows if row.cell_id in named), rows[0].dataset)
    counts = [row.utterances for row in rows if row.splits]
    size = f" ({wording.utterances(counts[0])})" if counts and corpus != rows[0].dataset else ""
    return f"{corpus}{size}, {rows[0].settings.device}"


def labels(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → shortest name that is unique within the cell's group."""
    models = wording.models(rows)
    several = len({(models[row.cell_id], row.settings.weights) for row in rows}) > 1
    found: dict[str, str] = {}
    for group in groups(rows):
        for model in dict.fromkeys((models[row.cell_id], row.settings.weights) for row in group.rows):
            some = [row for row in group.rows if (models[row.cell_id], row.settings.weights) == model]
            named = wording.methods(some)
            found |= {row.cell_id: _label_of(model[0] if several else "", named[row.cell_id], row) for row in some}
    return found


def _label_of(model: str, method: str, row: CellSummary) -> str:
    """Label of a cell; baselines get a clearer word than `none`."""
    text = method.replace("none", against.unquantized(row), 1) if method.split(" ")[0] == "none" else method
    return f"{model} {text}".strip()


def state(rows: Sequence[CellSummary]) -> dict[str, Any]:
    """All data of the charts, as JSON."""
    by_id = {row.cell_id: row for row in rows}
    named, full = labels(rows), wording.names(rows)
    made = groups(rows)
    bars = {row.cell_id: _bars(row, group, by_id) for group in made for row in group.rows}
    margins = [row.comparison.margin for row in rows if row.comparison is not None]
    return {
        "pooled": POOLED,
        "reference": against.reference(rows),
        "baseline": against.baseline(rows),
        "rate": wording.rate_name(rows),
        "margin": margins[0] if margins else None,
        "libraries": list(dict.fromkeys(row.settings.library for row in rows)),
        "groups": [
            {
                "label": group.label,
                "cells": [row.cell_id for row in group.rows],
                "splits": group.splits,
                "paired": group.reference is not None,
                "few": next((what for _, what in wording.too_few(group.measured)), None),
                "fronts": dict(_fronts(group, by_id)),
            }
            for group in made
        ],
        "cells": {cell: _cell(row, named[cell], full[cell]) | {"bars": bars[cell]} for cell, row in by_id.items()},
    }


def _cell(row: CellSummary, label: str, name: str) -> dict[str, Any]:
    return {
        "label": label,
        "name": name,
        "library": row.settings.library,
        "status": row.status,
        "reason": row.record.reason,
        "verdict": row.verdict,
        "baseline": row.baseline,
        "size": row.size_bytes,
        "speed": None if row.record.speed is None else row.record.speed.verdict,
        "cost": {name: _value_and_interval(find(row)) for name, find in COSTS.items()} if row.ok else {},
        "wer": {split: _value_and_interval(wer(row, split)) for split in (POOLED, *row.splits)},
        "difference": {split: _value_and_interval(difference(row, split)) for split in (POOLED, *row.splits)},
        "facts": list(facts(row)),
    }


def _value_and_interval(found: Estimate | None) -> list[float | None] | None:
    return None if found is None else [found.value, *(found.ci95 or (None, None))]


def wer(row: CellSummary, split: str) -> Estimate | None:
    """WER of a split, or pooled over all (`POOLED`)."""
    return row.rate("wer", None if split == POOLED else split)


def difference(row: CellSummary, split: str) -> Estimate | None:
    """WER minus the reference's, of a split or pooled; None for a reference, or without one."""
    return row.difference("wer", None if split == POOLED else split)


def _bars(row: CellSummary, group: Group, by_id: dict[str, CellSummary]) -> dict[str, list[float | None] | None]:
    """WER for the scatter plot, with the interval of the paired difference if all cells share a reference."""
    found: dict[str, list[float | None] | None] = {}
    for split in (POOLED, *row.splits):
        pairing, change = _pairing(row, split, by_id)
        if group.reference is None or pairing is None:
            found[split] = _value_and_interval(wer(row, split))
        elif change is None or change.ci95 is None:
            found[split] = [pairing[1].value if change is None else pairing[1].value + change.value, None, None]
        else:
            found[split] = [pairing[1].value + value for value in (change.value, *change.ci95)]
    return found


def facts(row: CellSummary) -> Iterator[tuple[str, str]]:
    """Key facts of a cell: name, formatted figure."""
    if not row.ok:
        yield row.status, row.record.reason or "no reason recorded"
    if row.wer is not None:
        yield wording.rate_name([row]), estimate(row.wer, percent, " %")
        yield from (("scored by", how) for how in wording.scorings([row]).values())
    if (loops := wording.looping(row)) is not None:
        yield "loops", loops
    for kind, failure in row.evidence.hidden.items():
        if failure.share.value or failure.verdict == "fewer":
            yield f"{NAMES[kind]} %", shown(failure)
    if row.evidence.no_regression is not None:
        yield f"not worse than {against.reference([row])}", estimate(row.evidence.no_regression, percent, " %")
    if (words := row.keywords) is not None:
        yield from keyword_facts(words)
    yield from word_times.facts(row.record.splits, row.word_times)
    found = difference(row, POOLED)
    if found is not None:
        yield f"against {against.reference([row])}", estimate(found, points, " points")
    if row.rtf is not None:
        yield "RTF", estimate(row.rtf, three_digits)
    if (speed := row.record.speed) is not None:
        text = f"{wording.ratio(speed.ratio)}{between(speed.ci95, wording.ratio)}, {speed.verdict}"
        yield f"time / {against.unquantized(row)}", text
    if row.size_bytes is not None:
        smaller = f", {percent(row.record.size_reduction, 0)} % smaller" if row.record.size_reduction else ""
        yield "size", f"{megabytes(row.size_bytes)} MB{smaller}"
        if left := wording.embedding_left(row):
            yield "of it", left


def _fronts(group: Group, by_id: dict[str, CellSummary]) -> Iterator[tuple[str, dict[str, Any]]]:
    for cost in COSTS:
        for split in (POOLED, *group.splits):
            found = _front(group, cost, split, by_id)
            if found is not None:
                yield f"{cost} {split}", asdict(found)


def _front(group: Group, cost: str, split: str, by_id: dict[str, CellSummary]) -> Front | None:
    candidates = []
    for row in group.measured:
        if ranking.few(row):
            return None  # without intervals nothing can be resampled, and single measurements would look certain
        x, y = COSTS[cost](row), wer(row, split)
        if x is not None and y is not None and not row.stopped_early:  # whose WER is that of a part of the corpus
            pairing, change = _pairing(row, split, by_id)
            if pairing is not None and group.reference is not None:
                pairing = (pairing[0], Estimate(pairing[1].value))
            candidates.append(Candidate(row.cell_id, x, y, pairing, change))
    return front(candidates)


def _pairing(
    row: CellSummary, split: str, by_id: dict[str, CellSummary]
) -> tuple[tuple[str, Estimate] | None, Estimate | None]:
    """Reference (cell id, WER) and difference to it; (None, None) without a comparison."""
    other = by_id.get(row.reference or "")
    base, change = None if other is None else wer(other, split), difference(row, split)
    if other is None or base is None or (change is None and other is not row):
        return None, None
    return (other.cell_id, base), change
