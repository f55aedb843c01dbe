"""One line of CSV per cell, for spreadsheets and data frames: flat columns, full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantlab.report.rows import Row


def render(root: Path, rows: Sequence[Row]) -> str:
    """Nested keys joined by dots, an interval as two columns (`.low`, `.high`), of problems their number; what does
    not exist is empty.
    """
    lines = [dict(_flat(row)) for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _header(lines), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _header(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every column once; not `speed` for the rows that have none, where others have `speed.ratio`."""
    found = dict.fromkeys(name for line in lines for name in line)
    parents = {name[:index] for name in found for index, letter in enumerate(name) if letter == "."}
    return [name for name in found if name not in parents]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    elif name.endswith("ci95"):
        low, high = value if value is not None else (None, None)
        yield from ((f"{name}.low", low), (f"{name}.high", high))
    elif name == "problems":
        yield name, len(value)
    elif isinstance(value, list | tuple):
        yield name, ";".join(map(str, value))
    else:
        yield name, value
