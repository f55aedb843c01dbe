"""Claims on cells: only one process at a time measures a cell, even across machines that share the folder.

A claim is an OS lock on `<root>/claims/<cell_id>.lock`, which is released when its process is killed, so claims are
never stale. `<cell_id>.json` beside it describes the owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from quantlab.util.files import read_note


@contextlib.contextmanager
def claimed(root: str | Path, cell_id: str, label: str = "", wait: bool = False) -> Iterator[bool]:
    """Claim a cell within the block; yields False if another process holds it.

    Args:
        root: the shared folder of records.
        cell_id: id of the cell.
        label: label of the cell.
        wait: wait for the other process instead of yielding False.
    """
    folder = _folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{cell_id}.lock", timeout=-1 if wait else 0)
    try:
        lock.acquire(poll_interval=0.5)
    except Timeout:
        yield False
        return
    note = folder / f"{cell_id}.json"
    try:
        with contextlib.suppress(OSError):  # a full disk; the lock still holds
            note.write_text(json.dumps({"label": label} | _this_process()), encoding="utf-8")
        yield True
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def owners(root: str | Path) -> dict[str, dict[str, str]]:
    """The owners of all cells that are being measured, by cell id; see `owner`."""
    named = [path.stem for path in _folder(root).glob("*.json")]
    return {cell_id: found for cell_id in named if (found := owner(root, cell_id)) is not None}


def clean(root: str | Path) -> None:
    """Remove notes of claims left by killed processes."""
    for note in _folder(root).glob("*.json"):
        with contextlib.suppress(Timeout), FileLock(note.with_suffix(".lock"), timeout=0):
            note.unlink(missing_ok=True)


def owner(root: str | Path, cell_id: str) -> dict[str, str] | None:
    """Label, host, process, SLURM job and start time of the process that measures a cell; None if there is none.

    Empty if that process has only just started.
    """
    folder = _folder(root)
    if not (folder / f"{cell_id}.lock").exists():
        return None
    # in a read-only folder the lock cannot be tried
    with contextlib.suppress(Timeout, PermissionError), FileLock(folder / f"{cell_id}.lock", timeout=0):
        return None
    return {key: str(value) for key, value in read_note(folder / f"{cell_id}.json").items()}


def slurm_job() -> str | None:
    """The SLURM job of this process, `123` or `123_4`; None outside of a job."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _this_process() -> dict[str, str]:
    job = slurm_job()
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    } | ({"slurm_job": job} if job else {})


def _folder(root: str | Path) -> Path:
    return Path(root) / "claims"
