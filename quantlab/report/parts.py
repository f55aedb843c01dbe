"""Elements of a report document, independent of its format: sections, tables, fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["best", "level", ""]


@dataclass(frozen=True)
class Cell:
    """One field of a table."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption."""

    header: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    caption: str
    align: str  # one letter per column: l text, r figures, p sentences that may wrap


@dataclass(frozen=True)
class Section:
    """A heading, a bullet list, a table, and notes below it."""

    heading: str
    bullets: tuple[str, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()
    level: int = 2  # heading level; 3 is a subsection
