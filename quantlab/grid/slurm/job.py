"""Code that runs inside a SLURM job: one task of a batch.

A job may be stopped at any moment and started again. Its state is on disk, so that a restart after
preemption, requeue or a node failure runs only cells without a record.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.config.schema import RunConfig, TrackingConfig
from quantlab.grid.claims import slurm_job
from quantlab.grid.plan import Cell, Refusal
from quantlab.grid.progress import Display
from quantlab.grid.run import Grid
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm.batch import Batch, Planned
from quantlab.grid.slurm.check import plan_here
from quantlab.grid.slurm.stop import Stoppable, limit_note, note_limit

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

REQUEUED = 75  # exit code: EX_TEMPFAIL of sysexits.h


class Task:
    """One task of a batch, callable by submitit, which pickles this empty object and the three arguments."""

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._todo: list[Planned] = []
        self._grid: Grid | None = None

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: object) -> None:
        self.__init__()  # type: ignore[misc]

    def __call__(self, root: str, batch_id: str, task: int) -> int:
        """Measure the cells of the task that have no record of this batch yet.

        Returns:
            Number of cells measured now, or found measured at their turn.

        Raises:
            ValueError: the batch or task does not exist.
        """
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # on a node without internet, requests to the hub would time out
        self._batch = batch = batches.read(root, batch_id)
        if not 0 <= task < len(batch.tasks):
            raise ValueError(f"batch {batch_id} has tasks 0 to {len(batch.tasks) - 1}, not {task}")
        _remember_start(root, batch_id, task)
        self._todo = [cell for cell in batch.planned(task) if batches.made_since(root, cell) is None]
        if not self._todo:
            return 0
        cells = _cells(root, batch, self._todo)
        with Reporting(len(cells), batches.stage_file(root, batch_id, task)) as display:
            self._grid = grid = Grid(Path(root), _in_job(cells[0].config), display)
            assert grid.workers is not None  # ensured by `_in_job`
            with Stoppable(grid.workers) as grid.workers:
                return len(grid.run(cells))

    def checkpoint(self, root: str, batch_id: str, task: int) -> DelayedSubmission:
        """Called by submitit before the time limit or on preemption: the remaining cells run in the next start."""
        from submitit.helpers import DelayedSubmission

        self.note_limit(root)
        return DelayedSubmission(Task(), root, batch_id, task)

    def note_limit(self, root: str) -> None:
        """See `stop.note_limit`."""
        if self._batch:
            note_limit(root, self._batch, self._todo, self._grid.measuring if self._grid else None)


def run_task(root: str, batch_id: str, task: int) -> int:
    """Run a `Task` without submitit: SLURM's signal before the time limit requeues the job.

    Returns:
        As `Task`. After the signal, the process exits with the code REQUEUED.
    """
    work = Task()

    def requeue(signum: int, frame: object) -> None:
        work.note_limit(root)
        if job := slurm_job():
            subprocess.run(["scontrol", "requeue", job], check=False)
        sys.exit(REQUEUED)

    signal.signal(signal.SIGUSR2, requeue)
    return work(root, batch_id, task)


class Reporting(Display):
    """Display that also writes the stage of the running cell to a file, for `quantlab status`."""

    def __init__(self, total: int, path: Path) -> None:
        super().__init__(total)
        self._path, self._kept = path, ""

    def update(self, stage: str, done: int, total: int) -> None:
        """See `Display.update`."""
        super().update(stage, done, total)
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
