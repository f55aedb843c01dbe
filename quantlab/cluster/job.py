"""What runs inside a job: one task of a batch. Its cells are those on disk, and records tell which are left to do.

A job may be stopped at any moment and started again; what it has to know then is on disk, so that a start after
preemption, requeue or the failure of a node does only what has no record.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.claims import slurm_job
from quantlab.cluster import batch as batches
from quantlab.cluster.batch import Batch, Planned
from quantlab.cluster.options import signal_delay_s
from quantlab.config import RunConfig, TrackingConfig
from quantlab.errors import ConfigError
from quantlab.grid import Grid
from quantlab.isolate import Failure, Runner
from quantlab.launcher import PREFIX
from quantlab.machine import Site, here
from quantlab.plan import Cell, Refusal, plan
from quantlab.progress import Display
from quantlab.record import CellResult

if TYPE_CHECKING:
    from types import TracebackType

    from submitit.helpers import DelayedSubmission

    from quantlab.cell import Progress  # imports torch

REQUEUED = 75  # exit code: EX_TEMPFAIL of sysexits.h
STARTED_S = time.time()
EARLY_S = 90  # how much earlier than asked for SLURM may tell of the limit: its own minute, and its timer


class Task:
    """One task of a batch. submitit pickles the object, which is empty, and the arguments, which are three words."""

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
            How many it measured, or found measured when their turn came.

        Raises:
            ValueError: there is no such batch or task.
        """
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a node without internet would wait for it in vain
        self._batch = batch = batches.read(root, batch_id)
        if not 0 <= task < len(batch.tasks):
            raise ValueError(f"batch {batch_id} has tasks 0 to {len(batch.tasks) - 1}, not {task}")
        _remember_start(root, batch_id, task)
        planned = batch.planned(task)
        self._todo = [cell for cell in planned if batches.made_since(root, cell) is None]
        cells = [_as_found_here(cell, batch, root) for cell in self._todo]
        if not cells:
            return 0
        with Reporting(len(cells), _stage(root, batch_id, task)) as display:
            self._grid = grid = Grid(Path(root), _in_job(cells[0].config), display)
            assert grid.workers is not None  # `_in_job` sees to it
            with Stoppable(grid.workers) as grid.workers:
                return len(grid.run(cells, batch.sweep))

    def checkpoint(self, root: str, batch_id: str, task: int) -> DelayedSubmission:
        """What submitit calls before the job's limit, or when it is preempted: the rest goes on in its next start."""
        from submitit.helpers import DelayedSubmission

        self.note_limit(root)
        return DelayedSubmission(Task(), root, batch_id, task)

    def note_limit(self, root: str) -> None:
        """If the limit is near and no cell was done since the start, remember that for the cell in flight.

        Its record is written at the next start: a signal handler must not wait for the lock of the records, which
        the code that it interrupts may hold.
        """
        if self._batch is None or not self._todo or not _limit_is_near(self._batch):
            return
        if any(batches.made_since(root, cell) for cell in self._todo):
            return
        measuring = self._grid.measuring if self._grid else None
        cell_id, job = measuring.id if measuring else self._todo[0].id, slurm_job()
        limit = self._batch.launcher.timeout_min
        reason = (
            f"not done within the {limit} min of its job (SLURM {job} on {socket.gethostname()}): "
            f"raise {PREFIX}timeout_min"
        )
        batches.write_json(_interruption(root, self._batch.id, cell_id), {"reason": reason, "job": job})


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

    def run(self, config: RunConfig, log: Path, progress: Progress) -> CellResult | Failure:
        """See `Workers.run`."""
        outcome = self._workers.run(config, log, progress)
        if self._stopping and isinstance(outcome, Failure):
            raise SystemExit("stopped by SLURM: the cell in flight has no record, so that it is measured again")
        return outcome


class Reporting(Display):
    """Keeps on disk which stage the cell in flight is in, for `quantlab.status`: a small file each time it changes."""

    def __init__(self, total: int, path: Path) -> None:
        super().__init__(total)
        self._path, self._stage = path, ""

    def update(self, stage: str, done: int, total: int) -> None:
        """See `Display.update`."""
        super().update(stage, done, total)
        if stage != self._stage:
            self._stage = stage
            with contextlib.suppress(OSError):  # a full disk; the cell is not to suffer from it
                batches.write_json(self._path, {"stage": stage}, durable=False)


def _limit_is_near(batch: Batch) -> bool:
    """Whether it is the time limit that the signal tells of, and not preemption."""
    limit_s = 60 * batch.launcher.timeout_min
    end_s = float(os.environ.get("SLURM_JOB_END_TIME") or STARTED_S + limit_s)
    return end_s - time.time() <= signal_delay_s(batch.launcher.timeout_min) + EARLY_S


def _interruption(root: str, batch_id: str, cell_id: str) -> Path:
    return batches.folder(root, batch_id) / "interrupted" / f"{cell_id}.json"


def _stage(root: str, batch_id: str, task: int) -> Path:
    return batches.folder(root, batch_id) / "stages" / f"{task}.json"


def _remember_start(root: str, batch_id: str, task: int) -> None:
    path = batches.folder(root, batch_id) / "started" / f"{task}.json"
    value = {
        "job": slurm_job(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "starts": 1 + int(batches.read_json(path).get("starts", 0)),
    }
    batches.write_json(path, value)


def _in_job(config: RunConfig) -> RunConfig:
    """How the grid behaves here: which cells are to be done is known, and SQLite has one writer, which is not a job."""
    tracking = TrackingConfig(name="off") if config.tracking.name == "local" else config.tracking
    return config.model_copy(update={"resume": False, "isolate": True, "tracking": tracking})


def _as_found_here(planned: Planned, batch: Batch, root: str) -> Cell:
    """A cell as it was submitted, refused if it is another one on this node."""
    config = planned.run_config()
    cell = Cell(planned.id, config, planned.fingerprints, planned.versions)
    if reason := batches.read_json(_interruption(root, batch.id, planned.id)).get("reason"):
        return replace(cell, refusal=Refusal("timeout", str(reason)))
    try:
        [found] = plan([config], _node())
    except ConfigError as error:  # a file that was there at submission
        return replace(cell, refusal=Refusal("failed", f"not as it was submitted: {error}"))
    if found.refusal:
        return replace(cell, refusal=found.refusal)
    if found.id != planned.id:
        return replace(cell, refusal=Refusal("failed", _difference(planned, found)))
    return cell


def _node() -> Site:
    site = here()
    return replace(site, can_change=True, why_no_device=lambda name: _advised(site.why_no_device(name)))


def _advised(reason: str | None) -> str | None:
    if reason is None:
        return None
    what, _, _ = reason.partition(";")
    return (
        f"{what} ({socket.gethostname()}, SLURM {slurm_job()}); ask for one: hydra/launcher=slurm, "
        f"{PREFIX}partition, {PREFIX}gpu_type; or use device=cpu"
    )


def _difference(planned: Planned, found: Cell) -> str:
    told = [
        *_differing("version of", planned.versions, found.versions),
        *_differing("content of the", planned.fingerprints, found.fingerprints),
    ]
    return f"not the cell that was submitted ({'; '.join(told) or 'its configuration differs'}): submit it again"


def _differing(what: str, was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return [f"{what} {name}: {was.get(name)} at submission, {now.get(name)} here" for name in names]


def run_task(root: str, batch_id: str, task: int) -> int:
    """`Task` without submitit: the signal that SLURM sends before the limit puts the job back into the queue.

    Returns:
        As `Task`. After the signal the process ends with the exit code REQUEUED.
    """
    work = Task()

    def requeue(signum: int, frame: object) -> None:
        work.note_limit(root)
        if job := slurm_job():
            subprocess.run(["scontrol", "requeue", job], check=False)
        sys.exit(REQUEUED)

    signal.signal(signal.SIGUSR2, requeue)
    return work(root, batch_id, task)
