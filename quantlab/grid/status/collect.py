"""Status of each cell, from records, claims, batches and SLURM's queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantlab.grid.claims import abandoned, owners
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm.place import Look, Place, job_ids, log_of, look, places
from quantlab.grid.slurm.slurm import UNKNOWN, Job
from quantlab.grid.status.heads import Head, heads

SETTLED = ("ok", "unsupported")  # states that need no further run
ORDER = (*SETTLED, "running", "pending", "not submitted", "timeout", "oom", "failed", "lost")


@dataclass(frozen=True)
class Line:
    """Status of one cell."""

    cell_id: str
    label: str
    state: str  # status of the record, or pending, running, lost, not submitted
    detail: str = ""  # stage of a running cell; reason of a pending, failed or lost one
    job: str | None = None  # SLURM job, 123_4
    host: str | None = None  # machine that is measuring it
    since: str | None = None  # start of the measurement, UTC, ISO 8601
    batch: str | None = None
    log: str | None = None


@dataclass(frozen=True)
class _Seen:
    """All data on cells, by cell id."""

    root: Path
    heads: Mapping[str, Head]
    owners: Mapping[str, Mapping[str, str]]  # of the cells that are being measured
    gone: Mapping[str, Mapping[str, str]]  # owners that ended before their cell did
    places: Mapping[str, Place]
    jobs: Mapping[str, Mapping[int, str]]  # batch → task → job, from the folder's files
    look: Look

    def is_open(self, place: Place) -> bool:
        return _is_open(place, self.heads.get(place.cell.id))


def collect(root: str | Path) -> list[Line]:
    """Status of all cells below a root: those of batches in their order, then all others that were started."""
    busy, gone = owners(root), abandoned(root)  # before the records: a cell that ends meanwhile is in one of them
    known = heads(root)
    found = list(batches.read_all(root))
    spots = {id: place for id, place in places(found).items() if id in known or not _is_forgotten(root, place)}
    unfinished = {place.batch.id for id, place in spots.items() if _is_open(place, known.get(id))}
    now = look(root, [batch for batch in found if batch.id in unfinished])
    seen = _Seen(Path(root), known, busy, gone, spots, {batch.id: job_ids(root, batch) for batch in found}, now)
    return [_line(id, seen) for id in dict.fromkeys([*spots, *sorted(known), *sorted(busy), *sorted(gone)])]


def counts(lines: Sequence[Line]) -> dict[str, int]:
    """Number of cells per state, finished ones first."""
    states = [line.state for line in lines]
    present = [state for state in ORDER if state in states]
    return {state: states.count(state) for state in [*present, *sorted(set(states) - set(ORDER))]}


def _is_forgotten(root: str | Path, place: Place) -> bool:
    return batches.forgotten_file(root, place.batch.id, place.cell.id).exists()


def _is_open(place: Place, head: Head | None) -> bool:
    """Whether the batch has not recorded the cell yet."""
    return head is None or head.created_at == place.cell.before


def _line(id: str, seen: _Seen) -> Line:
    place, head = seen.places.get(id), seen.heads.get(id)
    if id in seen.owners:
        return _running(id, seen)
    if place and seen.is_open(place):
        job = seen.look.job(place)
        if job or (head is None and id not in seen.gone):
            return _open(place, job, seen.root)
    return _recorded(id, head, seen) if head else _lost(id, seen)


def _lost(id: str, seen: _Seen) -> Line:
    """Status of a cell that was started outside of a batch and is neither recorded nor running."""
    owner, log = seen.gone[id], _log(id, seen.root, None, None)
    return Line(
        id,
        owner.get("label") or id,
        "lost",
        "its process ended without a record",
        job=owner.get("slurm_job"),
        host=owner.get("host"),
        since=owner.get("since"),
        log=str(log) if log.exists() else None,
    )


def _running(id: str, seen: _Seen) -> Line:
    owner, place, head = seen.owners[id], seen.places.get(id), seen.heads.get(id)
    job = owner.get("slurm_job")
    in_batch = place if job else None
    stage = batches.read_json(batches.stage_file(seen.root, place.batch.id, place.task)) if place and job else {}
    known = place.cell.label if place else head.label if head else id
    return Line(
        id,
        owner.get("label") or known,
        "running",
        str(stage.get("stage", "")),
        job=job,
        host=owner.get("host"),
        since=owner.get("since"),
        batch=in_batch.batch.id if in_batch else None,
        log=str(_log(id, seen.root, in_batch, job)),
    )


def _open(place: Place, job: Job | None, root: Path) -> Line:
    """Status of a cell that its batch will measure, or should have measured."""
    id, (state, detail) = place.cell.id, _state(job)
    log = log_of(root, place.batch, job.id) if job else None
    return Line(
        id,
        place.cell.label,
        state,
        detail,
        job=job.id if job else None,
        batch=place.batch.id,
        log=str(log) if log and log.exists() else None,
    )


def _state(job: Job | None) -> tuple[str, str]:
    if job is None:
        return "not submitted", ""
    if job.state == UNKNOWN:
        return "pending", "SLURM cannot be queried from here"
    if job.ended:
        return "lost", f"its job ended ({job.state} {job.reason}".strip() + ") without a record"
    if job.state == "RUNNING":
        return "pending", f"its job has begun on {job.node}"
    return "pending", job.reason or job.state.lower()


def _recorded(id: str, head: Head, seen: _Seen) -> Line:
    place = seen.places.get(id)
    made = place if place and not seen.is_open(place) else None
    job = seen.jobs[made.batch.id].get(made.task) if made else None
    log = _log(id, seen.root, made, job)
    return Line(
        id,
        head.label,
        head.status,
        "" if head.status == "ok" else head.reason or "",
        job=job,
        batch=made.batch.id if made and job else None,
        log=str(log) if log.exists() else None,
    )


def _log(id: str, root: Path, place: Place | None, job: str | None) -> Path:
    """Log of the cell's job, or the cell's own log without a job."""
    return log_of(root, place.batch, job) if place and job else root / "logs" / f"{id}.log"
