"""Signals of SLURM inside a job: SIGTERM, and the warning before the time limit."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.config.launcher import PREFIX
from quantlab.config.schema import RunConfig
from quantlab.grid.claims import slurm_job
from quantlab.grid.plan import Cell
from quantlab.grid.process import Failure, Runner
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm import slurm
from quantlab.grid.slurm.batch import Batch, Planned
from quantlab.grid.slurm.options import signal_delay_s
from quantlab.grid.slurm.slurm import Limit
from quantlab.records.schema import CellResult

if TYPE_CHECKING:
    from types import TracebackType

    from quantlab.measurement.cell import Progress
    from quantlab.recogniser.fingerprints import Identity

STARTED_S = time.time()
EARLY_S = 90  # how much earlier than asked for SLURM may tell of the limit: its own minute, and its timer


class Stoppable:
    """Workers whose cell fails for nothing that it did, once SLURM has told the job to stop: that is no result.

    The job does not end by itself at SIGTERM: one that is preempted with a time of grace would not be queued again, and
    the cell in flight may still be done in it.
    """

    def __init__(self, workers: Runner) -> None:
        self._workers = workers
        self._stopping = False

    def __enter__(self) -> Stoppable:
        self._before = signal.signal(signal.SIGTERM, self._told)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _told(self, signum: int, frame: object) -> None:
        self._stopping = True

    def start(self) -> None:
        """See `Workers.start`."""
        self._workers.start()

    def run(
        self, config: RunConfig, log: Path, progress: Progress, known: Identity | None = None
    ) -> CellResult | Failure:
        """See `Workers.run`."""
        outcome = self._workers.run(config, log, progress, known)
        if self._stopping and isinstance(outcome, Failure):
            raise SystemExit("stopped by SLURM: the cell in flight has no record, so that it is measured again")
        return outcome


def note_limit(root: str, batch: Batch, todo: Sequence[Planned], measuring: Cell | None) -> None:
    """If the limit is near, so that the signal is not one of preemption, and no cell was done since the start: note it.

    Its record is written at the next start: a signal handler must not wait for the lock of the records, which the code
    that it interrupts may hold.

    Args:
        root: the folder of records.
        batch: what the job runs.
        todo: the cells that had no record when it started.
        measuring: the one in flight; where there is none yet, the first one is to blame.
    """
    job = slurm_job() or ""
    limit = slurm.limit_of(job) or _as_submitted(batch)
    near = limit.left_s <= signal_delay_s(batch.launcher.timeout_min) + EARLY_S
    if not todo or not near or any(batches.made_since(root, cell) for cell in todo):
        return
    where = f"SLURM {job} on {socket.gethostname()}"
    reason = f"not done within the time limit of its job, {limit.text} ({where}): raise {PREFIX}timeout_min"
    cell_id = measuring.id if measuring else todo[0].id
    batches.write_json(_path(root, batch, cell_id), {"reason": reason, "job": job})


def noted(root: str | Path, batch: Batch, cell_id: str) -> str | None:
    """What `note_limit` remembers of a cell."""
    reason = batches.read_json(_path(root, batch, cell_id)).get("reason")
    return str(reason) if reason else None


def _path(root: str | Path, batch: Batch, cell_id: str) -> Path:
    return batches.folder(root, batch.id) / "interrupted" / f"{cell_id}.json"


def _as_submitted(batch: Batch) -> Limit:
    """Where SLURM does not answer."""
    limit_min = batch.launcher.timeout_min
    return Limit(f"{limit_min} min", STARTED_S + 60 * limit_min - time.time())
