"""Search and deduplication of MLflow runs: one run per record is kept.

Several processes, on several machines, may log the same record at once, and each may be killed at any moment. None of
them asks the others. Each looks again when its run is complete, and keeps the same one as everybody else: of the
complete runs of a record the one with the smallest id. Whoever is last sees them all.

A run names the process that writes it in a tag, so that others see whether it will be complete: MLflow has no such
notion, and a run whose process was killed is RUNNING for ever.
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

CLOSED = "KILLED"  # half of a run, whose process is gone
INTERRUPTED = "interrupted: "  # how the reason of a closed run begins
_WRITER = "quantlab.writer"
_SILENT_MINUTES = 15  # a writer on another machine is given up after this; a record is logged in seconds
_SAME_START_S = 2.0  # the clock of a process's start is read with this precision at worst
_PAGE = 1000  # runs of one answer


class Run(NamedTuple):
    """What decides about a run: with the figures and parameters of each, thousands would take a gigabyte."""

    id: str
    status: str
    active: bool  # else it was deleted
    tags: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether all of it is there: the status is set last."""
        return self.status in ("FINISHED", "FAILED")


@dataclass(frozen=True)
class Identity:
    """Which record: a cell may have another one on another machine, and a later one in the same folder."""

    cell_id: str
    digest: str  # of record.json, 16 hexadecimal digits
    root: str  # the folder of records, by `root_id`

    def tags(self) -> dict[str, str]:
        """The tags by which its run is found again."""
        tags = {"kind": "cell", "cell_id": self.cell_id, "record": self.digest, "root": self.root}
        return {f"quantlab.{name}": value for name, value in tags.items()}

    def is_shown(self, run: Run) -> bool:
        """Whether the run is complete and of this record."""
        return run.complete and self._is_of(run)

    def replaces(self, run: Run) -> bool:
        """Whether a run goes once the record has its own: another one, half of one, or one of what it replaced."""
        if run.status == "RUNNING":
            return self._is_of(run) and is_ours(run.tags)  # of an attempt of ours that failed
        return self._is_of(run) or run.tags.get("quantlab.root", self.root) == self.root

    def _is_of(self, run: Run) -> bool:
        names = ("quantlab.record", "quantlab.records.schema")  # the latter is that of 0.1.0
        return self.digest in map(run.tags.get, names)


def identity(root: str | Path, cell_id: str) -> Identity:
    """Of a record on disk.

    Raises:
        OSError: there is none, or it cannot be read, or is no regular file.
    """
    content = read_bytes(storage.cells_dir(root) / cell_id / "record.json", storage.RECORD_BYTES)
    return Identity(cell_id, hashlib.sha256(content).hexdigest()[:16], root_id(root))


def root_id(root: str | Path) -> str:
    """Which folder of records this is, wherever it is mounted; a copy of it is another.

    The note in the folder holds its own inode number, which a copy does not share.
    """
    path = Path(root) / ".root.json"
    found = read_note(path)
    with contextlib.suppress(OSError, KeyError):
        if found["inode"] == path.stat().st_ino:
            return str(found["id"])
    if found:  # the note of the folder that this one was copied from
        path.unlink(missing_ok=True)
    fresh = path.with_name(f".root.{uuid.uuid4().hex[:8]}.tmp")
    fresh.touch()
    fresh.write_text(json.dumps({"id": uuid.uuid4().hex[:16], "inode": fresh.stat().st_ino}), encoding="utf-8")
    try:
        os.link(fresh, path)  # of several processes the first one wins
        fresh.unlink()
    except FileExistsError:
        fresh.unlink()
    except OSError:  # a file system without hard links
        fresh.replace(path)
    return str(read_note(path)["id"])


def search(store: Store, deleted: bool = False, **tags: str) -> list[Run]:
    """The runs that have these tags (`kind="cell"` is tag quantlab.kind), `deleted` ones too."""
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
    """The run that is kept, if the record has a complete one; what that makes superfluous is deleted."""
    there = [run for run in found if run.active]
    kept = min((run for run in there if record.is_shown(run)), default=None)  # by id
    if kept is None:
        return None
    for run in there:
        if run is not kept and record.replaces(run):
            store.client.delete_run(run.id)
    if kept.tags.get("reason", "").startswith(INTERRUPTED):  # somebody gave its writer up too early
        store.client.delete_tag(kept.id, "reason")
    return kept


def join(store: Store, run: Run, sweeps: Sequence[str]) -> None:
    """Let the run say to which sweeps its cell belongs; there may be several."""
    before = run.tags.get("quantlab.sweep", "").split()
    if news := [sweep for sweep in sweeps if sweep not in before]:
        store.client.set_tag(run.id, "quantlab.sweep", " ".join([*before, *news]))


def close_interrupted(store: Store) -> int:
    """End the runs that nobody will ever complete, with the reason; how many there were."""
    from mlflow.entities import RunTag

    closed = 0
    for run in _search(store, "attributes.status = 'RUNNING' and tags.`quantlab.kind` LIKE '%'"):
        if why := why_gone(run.tags):
            store.client.log_batch(run.id, tags=[RunTag("status", "interrupted"), RunTag("reason", why)])
            store.client.set_terminated(run.id, CLOSED)
            closed += 1
    return closed


def writer_tag() -> dict[str, str]:
    """The tag that a run gets when it is created."""
    return {_WRITER: json.dumps(_process(os.getpid()) | {"since": round(time.time())})}


@functools.cache  # the clock may be set while we run, and with it what the system says of our start
def _process(pid: int) -> dict[str, Any]:
    """Who writes: `started` (seconds since 1970) tells a process from an earlier one of the same number."""
    return {"host": socket.gethostname(), "pid": pid, "started": round(psutil.Process(pid).create_time(), 2)}


def is_ours(tags: Mapping[str, str]) -> bool:
    """Whether this very process began the run."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        writer = json.loads(tags[_WRITER])
        return {name: writer[name] for name in ("host", "pid", "started")} == _process(os.getpid())
    return False


def why_gone(tags: Mapping[str, str]) -> str | None:
    """Why nobody will complete a run that is not complete; None while its writer may be alive."""
    try:
        writer = json.loads(tags[_WRITER])
        pid, started, minutes = int(writer["pid"]), float(writer["started"]), (time.time() - writer["since"]) / 60
        where = f"process {pid} on {writer['host']}"
    except (KeyError, TypeError, ValueError):
        return f"{INTERRUPTED}it does not say which process wrote it"
    if writer["host"] == socket.gethostname():
        return None if _lives(pid, started) else f"{INTERRUPTED}{where} ended while it wrote this run"
    return f"{INTERRUPTED}{where} began it {minutes:.0f} minutes before" if minutes > _SILENT_MINUTES else None


def _lives(pid: int, started: float) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(pid).create_time() - started) <= _SAME_START_S
    return False
