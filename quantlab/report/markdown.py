"""Markdown report, with tables in GitHub's dialect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantlab.report import document
from quantlab.report.cell_summary import CellSummary
from quantlab.report.parts import Cell, Section, Table
from quantlab.util.counted import counted
from quantlab.util.printable import markdown as escape


def render(rows: Sequence[CellSummary], unread: Sequence[str] = ()) -> str:
    """Render the whole document; ends with a line break."""
    parts = ["# Quantized speech recognisers, measured", f"{counted(len(rows), 'cell')}."]
    for section in document.sections(rows, unread):
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"{'#' * section.level} {escape(section.heading)}"
    if section.bullets:
        yield "\n".join(f"- {escape(text)}" for text in section.bullets)
    if section.table is not None:
        yield _table(section.table)
    if section.notes:
        yield "\n".join(f"- {escape(text)}" for text in section.notes)


def _table(table: Table) -> str:
    rule = ["---:" if letter == "r" else "---" for letter in table.align]
    lines = [[escape(title) for title in table.header], rule, *([_cell(cell) for cell in line] for line in table.lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return {"best": f"**{text}**", "level": f"≈ {text}", "": text}[cell.mark]
