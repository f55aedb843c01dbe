"""What a gate found as text, Markdown, and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from quantlab.analysis.regression.judge import Judged, Limits, worst
from quantlab.report.regression import lines
from quantlab.util.printable import markdown as escape
from quantlab.util.printable import printable, printable_parts

_WIDTH = len("cannot tell")
_MARKS = {"pass": "✅", "fail": "❌", "cannot tell": "❔", "not judged": "➖"}


def text(cells: Sequence[Judged], limits: Limits) -> str:
    """A block of lines for each cell, the summary last."""
    said = [line for item, name in zip(cells, lines.names(cells), strict=True) for line in _block(item, name, limits)]
    return "".join(f"{printable(line)}\n" for line in [*said, lines.summary(cells)])


def _block(item: Judged, name: str, limits: Limits) -> Iterator[str]:
    yield name
    for answer in item.answers:
        yield f"  {answer.outcome:<{_WIDTH}}  {answer.question}: {lines.line(item, answer, limits)}"
    for note in lines.notes(item):
        yield f"  {'':<{_WIDTH}}  {note}"


def markdown(cells: Sequence[Judged], limits: Limits) -> str:
    """A table in GitHub's dialect, and the notes of each cell."""
    rows = ["| | cell | question | |", "|---|---|---|---|"]
    bullets = []
    for item, name in zip(cells, lines.names(cells), strict=True):
        for answer in item.answers:
            said = escape(lines.line(item, answer, limits))
            rows.append(f"| {_MARKS[answer.outcome]} {answer.outcome} | {escape(name)} | {answer.question} | {said} |")
        bullets += [f"- {escape(name)}: {escape('; '.join(lines.notes(item)))}"]
    heading = f"### quantlab gate: {escape(lines.summary(cells))}"
    return "\n\n".join([heading, "\n".join(rows), "\n".join(bullets)]) + "\n"


def to_json(cells: Sequence[Judged], limits: Limits) -> str:
    """One object: outcome, limits, and a list of cells; rates are fractions, `_s` seconds, missing figures null."""
    found = {
        "outcome": worst([item.outcome for item in cells]),
        "limits": asdict(limits),
        "cells": [_object(item, name, limits) for item, name in zip(cells, lines.names(cells), strict=True)],
    }
    return json.dumps(printable_parts(found), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _object(item: Judged, name: str, limits: Limits) -> Mapping[str, Any]:
    ratio = item.slowdown.ratio if item.slowdown is not None else None
    receipts = (item.before.record.receipt, item.now.receipt if item.now is not None else None)
    return {
        "name": name,
        "baseline": item.before.record.cell_id,
        "cell_id": item.now.cell_id if item.now is not None else None,
        "outcome": item.outcome,
        "answers": [
            {"question": one.question, "outcome": one.outcome, "why": lines.line(item, one, limits)}
            for one in item.answers
        ],
        "accuracy": None if item.accuracy is None else asdict(item.accuracy) | {"worse": item.accuracy.worse},
        "time_ratio": None if ratio is None else {"value": ratio.value, "ci95": [ratio.low, ratio.high]},
        "size_bytes": [receipt.size_bytes if receipt is not None else None for receipt in receipts],
        "changed": item.changed,
        "notes": lines.notes(item),
    }


FORMATS: dict[str, Callable[[Sequence[Judged], Limits], str]] = {"text": text, "markdown": markdown, "json": to_json}
