"""Selection of the cells of a grid that need a SLURM job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantlab.config.launcher import LauncherConfig
from quantlab.grid.plan import Cell
from quantlab.grid.run import SETTLED, Grid
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm.batch import Batch, Planned
from quantlab.grid.slurm.group import tasks
from quantlab.grid.slurm.place import Place, look, places
from quantlab.records import storage
from quantlab.records.schema import Record


@dataclass(frozen=True)
class Split:
    """The cells of a grid, divided by what remains to be done."""

    here: list[Cell]  # already recorded, or refused
    elsewhere: list[Cell]  # in jobs of earlier commands
    new: list[Cell]  # to be submitted
    places: dict[str, Place]  # of the cells in `elsewhere`
    before: dict[str, Record]  # existing records

    def batch(self, launcher: LauncherConfig, sweep: str) -> Batch | None:
        """The batch to submit; None if there are no new cells."""
        planned = [Planned.of(cell, self.before.get(cell.id)) for cell in self.new]
        return batches.new(sweep, launcher, planned, tasks(planned, launcher.cells_per_job)) if planned else None


def divide(cells: Sequence[Cell], grid: Grid) -> Split:
    """Divide the cells of a grid by what remains to be done."""
    readable = storage.readable(grid.root, [cell.id for cell in cells], lambda why: None)  # the grid reports them
    before = {record.cell_id: record for record in readable}
    done = {id for id, record in before.items() if grid.resume and record.status in SETTLED}
    left = [cell for cell in cells if cell.id not in done and cell.refusal is None]
    live = _live(grid.root, {cell.id for cell in left})
    return Split(
        here=[cell for cell in cells if cell.id in done or cell.refusal],
        elsewhere=[cell for cell in left if cell.id in live],
        new=[cell for cell in left if cell.id not in live],
        places=live,
        before=before,
    )


def _live(root: Path, ids: set[str]) -> dict[str, Place]:
    """Places of the cells that a job of an earlier submission measures or will measure."""
    found = {
        id: place
        for id, place in places(batches.read_all(root)).items()
        if id in ids and batches.made_since(root, place.cell) is None
    }
    now = look(root, list({place.batch.id: place.batch for place in found.values()}.values()))
    return {id: place for id, place in found.items() if now.is_live(place)}
