"""Outcomes of cells in the form to be stored."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from quantlab.grid.attempt import Failure, Outcome
from quantlab.grid.plan import Cell
from quantlab.records.schema import CellResult, Noise, Record, Stages
from quantlab.util.redact import redact


def finished(outcome: Outcome, cell: Cell, total_s: float) -> CellResult:
    """A result or failure in the form to be stored."""
    if isinstance(outcome, CellResult):
        stages = outcome.record.stages.model_copy(update={"total_s": total_s})
        return outcome.model_copy(update={"record": outcome.record.model_copy(update={"stages": stages})})
    return CellResult(
        record=Record(
            cell_id=cell.id,
            status=outcome.status,
            reason=outcome.reason and redact(outcome.reason),  # it is printed too
            traceback=outcome.traceback and redact(outcome.traceback),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            config=cell.config.model_dump(mode="json"),
            fingerprints=cell.fingerprints,
            environment={"versions": cell.versions},
            receipt=outcome.receipt,
            stages=Stages(total_s=total_s),
        )
    )


def unwritten(cell: Cell, error: OSError, total_s: float | None = None) -> CellResult:
    return finished(Failure("failed", f"its record could not be written: {error}"), cell, total_s or 0.0)


def beside(result: CellResult, others: Collection[str]) -> CellResult:
    """The result, which tells that other cells ran at the same time.

    Args:
        result: of a cell.
        others: ids of these cells; empty if it was alone.
    """
    if not others:
        return result
    noise = result.record.noise or Noise()
    flags = noise.flags
    if result.record.status == "ok":
        flags = (*flags, f"other cells ran at the same time (jobs={result.record.config['jobs']})")
    told = noise.model_copy(update={"beside": tuple(sorted(others)), "flags": flags})
    return result.model_copy(update={"record": result.record.model_copy(update={"noise": told})})
