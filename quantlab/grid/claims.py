"""Claims on cells: one process at a time measures a cell, also among machines that share the folder.

A claim is a lock of the operating system on `<root>/claims/<cell_id>.lock`: a process that is killed frees it, so that
no claim is ever stale. What is beside it, `<cell_id>.json`, tells a person whose it is.
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
    """Hold a cell for the length of the block, or learn (False) that another process does.

    Args:
        root: the folder of records, which all processes share.
        cell_id: which cell.
        label: what a person calls it.
        wait: until the other process is done with it, instead of False.
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
        with contextlib.suppress(OSError):  # a full disk; the lock holds all the same
            note.write_text(json.dumps({"label": label} | _me()), encoding="utf-8")
        yield True
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def owners(root: str | Path) -> dict[str, dict[str, str]]:
    """What `owner` tells, of every cell that is being measured now."""
    named = [path.stem for path in _folder(root).glob("*.json")]
    return {cell_id: found for cell_id in named if (found := owner(root, cell_id)) is not None}


def clean(root: str | Path) -> None:
    """Take away what killed processes left: the note of whose a claim is, where nobody holds the claim any more."""
    for note in _folder(root).glob("*.json"):
        with contextlib.suppress(Timeout), FileLock(note.with_suffix(".lock"), timeout=0):
            note.unlink(missing_ok=True)


def owner(root: str | Path, cell_id: str) -> dict[str, str] | None:
    """Label, host, process, SLURM job and start of who is measuring a cell now; None where nobody is.

    Empty while that process has only just begun.
    """
    folder = _folder(root)
    if not (folder / f"{cell_id}.lock").exists():
        return None
    # a folder that is somebody else's and only for reading has no way to try the lock
    with contextlib.suppress(Timeout, PermissionError), FileLock(folder / f"{cell_id}.lock", timeout=0):
        return None
    return {key: str(value) for key, value in read_note(folder / f"{cell_id}.json").items()}


def slurm_job() -> str | None:
    """The job of SLURM that this process is part of, `123` or `123_4`; None outside of one."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _me() -> dict[str, str]:
    job = slurm_job()
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    } | ({"slurm_job": job} if job else {})


def _folder(root: str | Path) -> Path:
    return Path(root) / "claims"
