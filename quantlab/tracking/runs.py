"""Search and deduplication of MLflow runs: one run per record is kept.

Several processes, on several machines, may log the same record at once, and each may be killed at any moment. They
need no coordination: after completing its run, each searches again and keeps, of the complete runs of the record, the
one with the smallest id. The last process to finish sees all of them.

A tag of each run names the process that writes it, so that others can tell whether that process still exists: MLflow
does not know, and shows a run whose process was killed as RUNNING forever.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from quantlab.records import storage
from quantlab.tracking.store import Store
from quantlab.util.files import read_bytes, read_note

CLOSED = "KILLED"  # an incomplete run whose process has ended
INTERRUPTED = "interrupted: "  # prefix of the reason of a closed run
_WRITER = "quantlab.writer"
_SILENT_MINUTES = 15  # time limit for writers on other machines; logging a record takes seconds
_SAME_START_S = 2.0  # lowest precision at which the start time of a process is known
_PAGE = 1000  # runs per response


class Run(NamedTuple):
    """The needed fields of a run; thousands of runs with all metrics and parameters would take a gigabyte."""

    id: str
    status: str
    active: bool  # false: deleted
    tags: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether it was written completely: the status is set last."""
        return self.status in ("FINISHED", "FAILED")


@dataclass(frozen=True)
class Identity:
    """Identifies a record: a cell may have another one on another machine, or a later one in the same folder."""

    cell_id: str
    digest: str  # of record.json, 16 hexadecimal digits
    root: str  # the folder of records, by `root_id`

    def tags(self) -> dict[str, str]:
        """Tags by which its run is found."""
        tags = {"kind": "cell", "cell_id": self.cell_id, "record": self.digest, "root": self.root}
        return {f"quantlab.{name}": value for name, value in tags.items()}

    def is_shown(self, run: Run) -> bool:
        """Whether the run is complete and shows this record."""
        return run.complete and self._is_of(run)

    def replaces(self, run: Run) -> bool:
        """Whether a run is superfluous: a duplicate, an incomplete one, or one of a record that this one replaced."""
        if run.status == "RUNNING":
            return self._is_of(run) and is_ours(run.tags)  # of a failed attempt of this process
        return self._is_of(run) or run.tags.get("quantlab.root", self.root) == self.root

    def _is_of(self, run: Run) -> bool:
        names = ("quantlab.record", "quantlab.records.schema")  # the second one is the name in 0.1.0
        return self.digest in map(run.tags.get, names)


def identity(root: str | Path, cell_id: str) -> Identity:
    """Identity of a record on disk.

    Raises:
        OSError: it does not exist, cannot be read, or is not a regular file.
    """
    content = read_bytes(storage.cells_dir(root) / cell_id / "record.json", storage.RECORD_BYTES)
    return Identity(cell_id, hashlib.sha256(content).hexdigest()[:16], root_id(root))


def root_id(root: str | Path) -> str:
    """Identifier of a folder of records, wherever it is mounted; a copy of the folder gets its own.

    It is stored in the folder, in a file that contains its own inode number, which differs in a copy.
    """
    path = Path(root) / ".root.json"
    found = read_note(path)
    with contextlib.suppress(OSError, KeyError):
        if found["inode"] == path.stat().st_ino:
            return str(found["id"])
    if found:  # copied from another folder
        path.unlink(missing_ok=True)
    fresh = path.with_name(f".root.{uuid.uuid4().hex[:8]}.tmp")
    fresh.touch()
    fresh.write_text(json.dumps({"id": uuid.uuid4().hex[:16], "inode": fresh.stat().st_ino}), encoding="utf-8")
    try:
        os.link(fresh, path)  # if several processes do this, the first one succeeds
        fresh.unlink()
    except FileExistsError:
        fresh.unlink()
    except OSError:  # a file system without hard links
        fresh.replace(path)
    return str(read_note(path)["id"])


def search(store: Store, deleted: bool = False, **tags: str) -> list[Run]:
    """Runs with these tags (`kind="cell"` is tag quantlab.kind), including deleted ones if `deleted` is true."""
    query = " and ".join(f"tags.`quantlab.{name}` = '{value}'" for name, value in tags.items())
    return _search(store, query, view=3 if deleted else 1)


def _search(store: Store, query: str, view: int = 1) -> list[Run]:
    found: list[Run] = []
    token: str | None = None
    while True:
        page = store.client.search_runs([store.experiment_id], query, view, max_results=_PAGE, page_token=token)
        found += [Run(r.info.run_id, r.info.status, r.info.lifecycle_stage == "active", r.data.tags) for r in page]
        token = page.token
        if not token:
            return found


def settle(store: Store, found: Sequence[Run], record: Identity) -> Run | None:
    """The run of the record, if it has a complete one; superfluous runs are deleted."""
    there = [run for run in found if run.active]
    kept = min((run for run in there if record.is_shown(run)), default=None)  # by id
    if kept is None:
        return None
    for run in there:
        if run is not kept and record.replaces(run):
            store.client.delete_run(run.id)
    if kept.tags.get("reason", "").startswith(INTERRUPTED):  # it was closed although its writer was alive
        store.client.delete_tag(kept.id, "reason")
    return kept


def join(store: Store, run: Run, sweeps: Sequence[str]) -> None:
    """Add sweeps to the tag that lists the sweeps of the run's cell."""
    before = run.tags.get("quantlab.sweep", "").split()
    if news := [sweep for sweep in sweeps if sweep not in before]:
        store.client.set_tag(run.id, "quantlab.sweep", " ".join([*before, *news]))


def close_interrupted(store: Store) -> int:
    """Close the runs whose writer no longer exists, with the reason, and return their number."""
    from mlflow.entities import RunTag

    closed = 0
    for run in _search(store, "attributes.status = 'RUNNING' and tags.`quantlab.kind` LIKE '%'"):
        if why := why_gone(run.tags):
            store.client.log_batch(run.id, tags=[RunTag("status", "interrupted"), RunTag("reason", why)])
            store.client.set_terminated(run.id, CLOSED)
            closed += 1
    return closed


def writer_tag() -> dict[str, str]:
    """Tag that names this process as the writer of a new run."""
    return {_WRITER: json.dumps(_process(os.getpid()) | {"since": round(time.time())})}


@functools.cache  # the reported start time changes if the clock is set
def _process(pid: int) -> dict[str, Any]:
    """A process; `started` (seconds since 1970) distinguishes it from an earlier one with the same number."""
    return {"host": socket.gethostname(), "pid": pid, "started": round(psutil.Process(pid).create_time(), 2)}


def is_ours(tags: Mapping[str, str]) -> bool:
    """Whether this process created the run."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        writer = json.loads(tags[_WRITER])
        return {name: writer[name] for name in ("host", "pid", "started")} == _process(os.getpid())
    return False


def why_gone(tags: Mapping[str, str]) -> str | None:
    """Why an incomplete run will not be completed; None while its writer may be alive."""
    try:
        writer = json.loads(tags[_WRITER])
        pid, started, minutes = int(writer["pid"]), float(writer["started"]), (time.time() - writer["since"]) / 60
        where = f"process {pid} on {writer['host']}"
    except (KeyError, TypeError, ValueError):
        return f"{INTERRUPTED}the process that wrote it is unknown"
    if writer["host"] == socket.gethostname():
        return None if _lives(pid, started) else f"{INTERRUPTED}{where} ended while writing this run"
    return f"{INTERRUPTED}not completed by {where} in {minutes:.0f} minutes" if minutes > _SILENT_MINUTES else None


def _lives(pid: int, started: float) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(pid).create_time() - started) <= _SAME_START_S
    return False
