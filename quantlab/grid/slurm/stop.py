"""Handling of SLURM's signals inside a job: SIGTERM, and the signal before the time limit."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.config.launcher import PREFIX
from quantlab.config.schema import RunConfig
from quantlab.grid.attempt import Failure, Outcome
from quantlab.grid.claims import slurm_job
from quantlab.grid.plan import Cell
from quantlab.grid.process import Runner
from quantlab.grid.running import Ended, Running
from quantlab.grid.shares import Share
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm import slurm
from quantlab.grid.slurm.batch import Batch, Planned
from quantlab.grid.slurm.options import signal_delay_s
from quantlab.grid.slurm.slurm import Limit

if TYPE_CHECKING:
    from types import TracebackType

    from quantlab.measurement.cell import Progress
    from quantlab.recogniser.fingerprints import Identity

STARTED_S = time.time()
EARLY_S = 90  # the signal may come up to a minute early, plus the interval of SLURM's timer


class Stoppable:
    """Workers that exit instead of recording a failure after SLURM's SIGTERM, as the cell is not at fault.

    The job does not exit at SIGTERM: a job that is preempted with a grace period would then not be requeued, and the
    running cell may finish within that period.
    """

    def __init__(self, workers: Runner) -> None:
        self._workers = workers
        self._stopping = False

    def __enter__(self) -> Stoppable:
        self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _on_sigterm(self, signum: int, frame: object) -> None:
        self._stopping = True

    def start(self) -> None:
        """See `Workers.start`."""
        self._workers.start()

    def begin(
        self, config: RunConfig, log: Path, progress: Progress, known: Identity | None, share: Share | None
    ) -> Running | Ended:
        """See `Workers.begin`."""
        return self._workers.begin(config, log, progress, known, share)

    def extract(self, config: RunConfig, log: Path, known: Identity) -> None:
        """See `Workers.extract`."""
        self._workers.extract(config, log, known)

    def finish(self, running: Running | Ended) -> Outcome:
        """See `Workers.finish`."""
        outcome = self._workers.finish(running)
        if self._stopping and isinstance(outcome, Failure):
            raise SystemExit("stopped by SLURM: the cell in progress has no record, so it is measured again")
        return outcome


def note_limit(root: str, batch: Batch, todo: Sequence[Planned], measuring: Cell | None) -> None:
    """Note a cell that exceeds the job's time limit: no cell was finished since the start, and the limit is near.

    If the limit is not near, the signal means preemption. The cell's record is written at the next start, since a
    signal handler must not wait for the records' lock, which the interrupted code may hold.

    Args:
        root: the folder of records.
        batch: batch of the job.
        todo: cells without a record at the job's start.
        measuring: the running cell; if None, the first of `todo` is noted.
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


def limit_note(root: str | Path, batch: Batch, cell_id: str) -> str | None:
    """Note of `note_limit` on a cell."""
    reason = batches.read_json(_path(root, batch, cell_id)).get("reason")
    return str(reason) if reason else None


def _path(root: str | Path, batch: Batch, cell_id: str) -> Path:
    return batches.folder(root, batch.id) / "interrupted" / f"{cell_id}.json"


def _as_submitted(batch: Batch) -> Limit:
    """Time limit as submitted, used if SLURM does not answer."""
    limit_min = batch.launcher.timeout_min
    return Limit(f"{limit_min} min", STARTED_S + 60 * limit_min - time.time())
