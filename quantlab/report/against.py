"""Names of what cells are compared with: their baselines or, for accuracy, a library or quantizer asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from quantlab.report.cell_summary import CellSummary


def unquantized(row: CellSummary) -> str:
    """Name of a cell's baseline, by its dtype."""
    bundle = row.record.bundle
    if bundle is not None and bundle.unquantized is not None:
        return bundle.unquantized
    return str(row.settings.dtype) if row.settings.is_half else "fp32"


def baseline(rows: Sequence[CellSummary]) -> str:
    """One name for the baselines of all rows, which times and sizes are relative to."""
    stored = {unquantized(row) for row in rows}
    return stored.pop() if len(stored) == 1 else "the baseline"


def reference(rows: Sequence[CellSummary]) -> str:
    """One name for what accuracy is compared with: the library or quantizer asked for, or the baselines."""
    return asked_for(rows) or baseline(rows)


def asked_for(rows: Sequence[CellSummary]) -> str | None:
    """The library or quantizer that these rows are compared with instead of their baselines, if one was asked for."""
    return next((row.against.name for row in rows if row.against is not None), None)


def compared(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each cell that others are compared with, and these; only if references were asked for.

    Args:
        rows: the cells.
        called: cell id → display name.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.against is not None and row.against.cell_id is not None and row.comparison is not None:
            found.setdefault(row.against.cell_id, []).append(called[row.cell_id])
    yield from ((called.get(cell_id, f"cell {cell_id}"), ", ".join(cells)) for cell_id, cells in found.items())
