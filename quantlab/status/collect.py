"""One line per cell, out of records, claims, batches, and what SLURM says of the jobs of those that are open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantlab.claims import owners
from quantlab.cluster import batch as batches
from quantlab.cluster.place import Look, Place, job_ids, log_of, look, places
from quantlab.cluster.slurm import UNKNOWN, Job
from quantlab.status.heads import Head, heads

SETTLED = ("ok", "unsupported")  # states after which nothing is left to do


@dataclass(frozen=True)
class Line:
    """Where one cell is."""

    cell_id: str
    label: str
    state: str  # a record's status, or one of pending, running, lost, not submitted
    detail: str = ""  # stage of a running cell; reason of one that waits, failed or is lost
    job: str | None = None  # of SLURM, 123_4
    host: str | None = None  # that measures it now
    since: str | None = None  # UTC, ISO 8601: when that began
    batch: str | None = None
    log: str | None = None


def collect(root: str | Path) -> list[Line]:
    """Every cell of the batches below a root, in their order, then the others that are recorded or being measured."""
    known, busy = heads(root), owners(root)
    found = list(batches.read_all(root))
    spots = places(found)
    open_ids = {place.batch.id for id, place in spots.items() if _is_open(place, known.get(id))}
    now = look(root, [batch for batch in found if batch.id in open_ids])
    ids = dict.fromkeys([*spots, *sorted(known), *sorted(busy)])
    return [_line(Path(root), id, known.get(id), busy.get(id), spots.get(id), now) for id in ids]


def counts(lines: Sequence[Line]) -> dict[str, int]:
    """Cells per state, the ones that are done first."""
    order = ["ok", "unsupported", "running", "pending", "not submitted", "timeout", "oom", "failed", "lost"]
    states = [line.state for line in lines]
    present = [state for state in order if state in states]
    rest = sorted(set(states) - set(order))
    return {state: states.count(state) for state in [*present, *rest]}


def _is_open(place: Place, head: Head | None) -> bool:
    """Whether the batch has not made a record of the cell yet."""
    return head is None or head.created_at == place.cell.before


def _line(
    root: Path, id: str, head: Head | None, owner: Mapping[str, str] | None, place: Place | None, now: Look
) -> Line:
    job = now.job(place) if place else None
    if owner is not None:
        return _running(root, id, head, owner, place)
    if place and _is_open(place, head) and (job or head is None):
        return _open(root, id, place, job)
    assert head is not None  # what is neither open nor running is recorded
    return _recorded(root, id, head, place)


def _running(root: Path, id: str, head: Head | None, owner: Mapping[str, str], place: Place | None) -> Line:
    job = owner.get("slurm_job")
    known = place.cell.label if place else head.label if head else ""
    stage = batches.read_json(batches.stage_file(root, place.batch.id, place.task)) if place else {}
    return Line(
        id,
        owner.get("label") or known or id,
        "running",
        str(stage.get("stage", "")) if job else "",
        job,
        owner.get("host"),
        owner.get("since"),
        place.batch.id if place and job else None,
        str(log_of(root, place.batch, job) if place and job else root / "logs" / f"{id}.log"),
    )


def _open(root: Path, id: str, place: Place, job: Job | None) -> Line:
    """A cell that its batch is to measure, or should have measured."""
    state, detail = _state(job)
    log = log_of(root, place.batch, job.id) if job else None
    shown = str(log) if log and log.exists() else None
    return Line(id, place.cell.label, state, detail, job.id if job else None, None, None, place.batch.id, shown)


def _state(job: Job | None) -> tuple[str, str]:
    if job is None:
        return "not submitted", ""
    if job.state == UNKNOWN:
        return "pending", "SLURM cannot be asked from here"
    if job.ended:
        return "lost", f"its job ended ({job.state} {job.reason}".strip() + ") without a record"
    if job.state == "RUNNING":
        return "pending", f"its job has begun on {job.node}"
    return "pending", job.reason or job.state.lower()


def _recorded(root: Path, id: str, head: Head, place: Place | None) -> Line:
    job = job_ids(root, place.batch).get(place.task) if place and not _is_open(place, head) else None
    log = log_of(root, place.batch, job) if place and job else root / "logs" / f"{id}.log"
    return Line(
        id,
        head.label,
        head.status,
        "" if head.status == "ok" else head.reason or "",
        job,
        batch=place.batch.id if place and job else None,
        log=str(log) if log.exists() else None,
    )
