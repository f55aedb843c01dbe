"""CSV report for spreadsheets and data frames: one row per cell, flat columns, full precision."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quantlab.report.cell_summary import CellSummary
from quantlab.report.wording import names
from quantlab.util.printable import printable

_FORMULA = re.compile(r"((?:^|[;,|])\s*)([=@＝＠]|[+\-＋－](?![\d.]*(?:$|[;,|])))")


def render(rows: Sequence[CellSummary]) -> str:
    """Render cells as CSV.

    Nested keys are joined by dots, an interval becomes two columns (`.low`, `.high`), problems and published figures
    become their number, and missing values are empty. The configuration is left out, as its main settings are columns.
    """
    called = names(rows)
    lines = [dict(_flat(_columns(row, called[row.cell_id]))) for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _header(lines), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _columns(row: CellSummary, label: str) -> dict[str, Any]:
    """Columns of a cell, those that identify it first."""
    found = row.to_dict()
    del found["config"]
    return {name: found[name] for name in ("cell_id", "status")} | {"label": label} | found


def _header(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every column once; without the empty `speed` of some rows where others have `speed.ratio`."""
    found = dict.fromkeys(name for line in lines for name in line)
    parents = {name[:index] for name in found for index, letter in enumerate(name) if letter == "."}
    return [name for name in found if name not in parents]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{_text(str(key))}" if name else _text(str(key)))
    elif name.endswith("ci95"):
        low, high = value if value is not None else (None, None)
        yield from ((f"{name}.low", low), (f"{name}.high", high))
    elif name in ("problems", "published"):
        yield name, len(value)
    elif isinstance(value, list | tuple):
        yield name, _text(";".join(map(str, value)))
    else:
        yield name, _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    """Text that a spreadsheet does not run: an apostrophe precedes anything that would begin a formula."""
    return _FORMULA.sub(r"\g<1>'\g<2>", printable(text))
