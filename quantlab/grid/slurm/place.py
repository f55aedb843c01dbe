"""State of the cells of a folder's batches: their jobs, and SLURM's information on these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm import slurm
from quantlab.grid.slurm.batch import Batch, Planned
from quantlab.grid.slurm.slurm import Job


@dataclass(frozen=True)
class Place:
    """One cell in one batch."""

    batch: Batch
    task: int
    cell: Planned


def places(found: Iterable[Batch]) -> dict[str, Place]:
    """Cell id → place; the last batch counts."""
    known: dict[str, Place] = {}
    for batch in found:
        cells = {cell.id: cell for cell in batch.cells}
        known |= {id: Place(batch, task, cells[id]) for task, ids in enumerate(batch.tasks) for id in ids}
    return known


@dataclass(frozen=True)
class Look:
    """Snapshot of SLURM's information on the jobs of some batches."""

    answered: bool
    jobs: Mapping[tuple[str, int], Job]  # (batch, task) → job; missing if never submitted

    def job(self, place: Place) -> Job | None:
        return self.jobs.get((place.batch.id, place.task))

    def is_live(self, place: Place) -> bool:
        """Whether the cell will be measured without any action."""
        job = self.job(place)
        return job is not None and not job.ended


def look(root: str | Path, found: Sequence[Batch]) -> Look:
    """Query SLURM for the jobs of some batches; if it does not answer, only their ids are known."""
    ids = {batch.id: job_ids(root, batch) for batch in found}
    arrays = {id.partition("_")[0] for known in ids.values() for id in known.values()}
    queued = slurm.queue(arrays, {batch.job_name for batch in found if not known_at_submission(root, batch)})
    jobs: dict[tuple[str, int], Job] = {}
    for batch in found:
        named = {} if queued is None else _by_name(batch, queued)
        for task in range(len(batch.tasks)):
            id = ids[batch.id].get(task)
            if task in named:
                jobs[batch.id, task] = named[task]
            elif id is not None:
                jobs[batch.id, task] = Job(id, slurm.UNKNOWN) if queued is None else queued.get(id, _gone(id))
    if queued is not None:
        jobs = _with_history(jobs)
    return Look(queued is not None, jobs)


def known_at_submission(root: str | Path, batch: Batch) -> list[str]:
    """Job ids returned by sbatch, in the order of tasks; empty for a script that a user submits."""
    found = batches.read_json(batches.folder(root, batch.id) / "submitted.json").get("jobs", [])
    return list(map(str, found)) if isinstance(found, list) and all(map(_is_job, found)) else []


def job_ids(root: str | Path, batch: Batch) -> dict[int, str]:
    """Task → job id, if the task was submitted by quantlab or has started."""
    submitted = known_at_submission(root, batch)
    if submitted:
        return dict(enumerate(submitted))
    started = batches.folder(root, batch.id) / "started"
    tasks = [path for path in started.glob("[0-9]*.json") if path.stem.isdecimal()]
    found = {int(path.stem): batches.read_json(path).get("job") for path in tasks}
    return {task: str(id) for task, id in found.items() if _is_job(id)}


def _is_job(id: object) -> bool:
    """Whether the id is valid; it is used in squeue's command line and in a path."""
    return bool(re.fullmatch(r"\d+(_\d+)?", str(id), re.ASCII))


def log_of(root: str | Path, batch: Batch, job_id: str) -> Path:
    """Path of a job's log."""
    return batches.slurm_dir(root, batch.id) / f"{job_id}_0_log.out"


def _by_name(batch: Batch, queued: Mapping[str, Job]) -> dict[int, Job]:
    """Task → job for a script submitted by the user: the array index is the task, and the last submission counts."""
    found: dict[int, Job] = {}
    for job in queued.values():
        array, _, index = job.id.partition("_")
        if job.name == batch.job_name and array.isdigit():
            task = int(index or 0)
            if task not in found or int(array) > int(found[task].id.partition("_")[0]):
                found[task] = job
    return found


def _gone(id: str) -> Job:
    return Job(id, slurm.GONE, "SLURM no longer knows it")


def _with_history(jobs: dict[tuple[str, int], Job]) -> dict[tuple[str, int], Job]:
    """Add information from accounting, if there is any, on jobs that have left the queue."""
    gone = {job.id for job in jobs.values() if job.state == slurm.GONE}
    history = slurm.history({id.partition("_")[0] for id in gone})
    return {key: history.get(job.id, job) if job.id in gone else job for key, job in jobs.items()}
