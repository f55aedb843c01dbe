"""Code that runs inside a SLURM job: one task of a batch.

A job may be stopped at any moment and started again. Its state is on disk, so that a restart after
preemption, requeue or a node failure runs only cells without a record.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from quantlab.config.schema import RunConfig, TrackingConfig
from quantlab.grid.claims import slurm_job
from quantlab.grid.opponents import may_stop
from quantlab.grid.plan import Cell, Refusal
from quantlab.grid.progress import Display
from quantlab.grid.run import Grid
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm import slurm
from quantlab.grid.slurm.batch import Batch, Planned
from quantlab.grid.slurm.check import plan_here
from quantlab.grid.slurm.stop import Stoppable, limit_note, note_limit

REQUEUED = 75  # exit code: EX_TEMPFAIL of sysexits.h


class Task:
    """One task of a batch."""

    def __init__(self, root: str, batch_id: str, task: int) -> None:
        """Read the batch.

        Raises:
            ValueError: the batch or task does not exist.
        """
        self._root, self._task, self._batch = root, task, batches.read(root, batch_id)
        if not 0 <= task < len(self._batch.tasks):
            raise ValueError(f"batch {batch_id} has tasks 0 to {len(self._batch.tasks) - 1}, not {task}")
        self._todo: list[Planned] = []
        self._grid: Grid | None = None

    def run(self) -> int:
        """Measure the cells of the task that have no record of this batch yet.

        Returns:
            Number of cells measured now, or found measured at their turn.
        """
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # on a node without internet, requests to the hub would time out
        root, batch = self._root, self._batch
        _remember_start(root, batch.id, self._task)
        self._todo = [cell for cell in batch.planned(self._task) if batches.made_since(root, cell) is None]
        if not self._todo:
            return 0
        cells = _cells(root, batch, self._todo)
        with Reporting(len(cells), batches.stage_file(root, batch.id, self._task)) as display:
            self._grid = grid = Grid(Path(root), _in_job(cells[0].config), display)
            with Stoppable(grid.workers) as grid.workers:
                return len(grid.run(cells, sum(may_stop(cell.run_config()) for cell in batch.cells)))

    def note_limit(self) -> None:
        """See `stop.note_limit`."""
        note_limit(self._root, self._batch, self._todo, self._grid.measuring if self._grid else None)


def run_task(root: str, batch_id: str, task: int) -> int:
    """Run a `Task` as the process of a job: SLURM's signal before the time limit requeues the job.

    Returns:
        As `Task.run`. After the signal, the process exits with the code REQUEUED.
    """
    work = Task(root, batch_id, task)

    def requeue(signum: int, frame: object) -> None:
        work.note_limit()
        if job := slurm_job():
            slurm.requeue(job)
        sys.exit(REQUEUED)

    signal.signal(signal.SIGUSR2, requeue)
    signal.signal(signal.SIGTERM, lambda signum, frame: None)  # a job that is preempted stays, see `Stoppable`
    return work.run()


class Reporting(Display):
    """Display that also writes the stage of the running cell to a file, for `quantlab status`."""

    def __init__(self, total: int, path: Path) -> None:
        super().__init__(total)
        self._path, self._kept = path, ""

    def update(self, label: str, stage: str, done: int, total: int) -> None:
        """See `Display.update`."""
        super().update(label, stage, done, total)
        if stage != self._kept:
            self._kept = stage
            with contextlib.suppress(OSError):  # e.g. a full disk, which must not fail the cell
                batches.write_json(self._path, {"stage": stage}, durable=False)


def _cells(root: str, batch: Batch, todo: Sequence[Planned]) -> list[Cell]:
    """Cells for the grid to run; a cell that the time limit ended earlier is refused, not retried."""
    limits = {cell.id: reason for cell in todo if (reason := limit_note(root, batch, cell.id))}
    return [
        replace(cell, refusal=Refusal("timeout", limits[cell.id])) if cell.id in limits else cell
        for cell in plan_here(todo)
    ]


def _remember_start(root: str, batch_id: str, task: int) -> None:
    path = batches.start_file(root, batch_id, task)
    value = {
        "job": slurm_job(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "starts": 1 + int(batches.read_json(path).get("starts", 0)),
    }
    batches.write_json(path, value)


def _in_job(config: RunConfig) -> RunConfig:
    """Configuration within a job: no resume, as the cells are known, and no MLflow, as SQLite allows one writer."""
    tracking = TrackingConfig(name="off") if config.tracking.name == "local" else config.tracking
    return config.model_copy(update={"resume": False, "isolate": True, "tracking": tracking})
