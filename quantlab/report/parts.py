"""What a document of the report is made of, in every format: sections, tables, fields."""

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
    align: str  # one letter a column: l words, r figures, p sentences that may wrap


@dataclass(frozen=True)
class Section:
    """A heading, what stands before the table as a list, the table, and notes on it."""

    heading: str
    bullets: tuple[str, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()
    level: int = 2  # of the heading; 3 stands within the 2 before
