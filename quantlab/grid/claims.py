"""Claims on cells: only one process at a time measures a cell, even across machines that share the folder.

A claim is an OS lock on `<root>/claims/<cell_id>.lock`, which is released when its process is killed, so claims are
never stale. `<cell_id>.json` beside it describes the owner, which touches it every minute. It stays if the owner is
killed or interrupted, and so tells of cells that were started and have no record.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from quantlab.records import storage
from quantlab.util.files import opened, read_note

BEAT_S = 60.0  # between the times that an owner touches its note
SILENT_S = 10 * BEAT_S  # since the last touch, after which an owner elsewhere is taken for dead; clocks may differ


@contextlib.contextmanager
def claimed(root: str | Path, cell_id: str, label: str = "", wait: bool = False) -> Iterator[bool]:
    """Claim a cell within the block; yields False if another process holds it.

    Args:
        root: the shared folder of records.
        cell_id: id of the cell.
        label: label of the cell.
        wait: wait for the other process instead of yielding False.

    The note about this process is removed at the end of the block, unless it is interrupted (Ctrl-C, exit).
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
        with _touched(note):
            yield True
    except Exception:
        note.unlink(missing_ok=True)
        raise
    else:
        note.unlink(missing_ok=True)
    finally:
        lock.release()


@contextlib.contextmanager
def _touched(note: Path) -> Iterator[None]:
    """Touch a note regularly within the block: where locks do not reach other machines, it shows that we are alive."""
    done = threading.Event()

    def touch() -> None:
        while not done.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(note)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def owners(root: str | Path) -> dict[str, dict[str, str]]:
    """The owners of all cells that are being measured, by cell id; see `owner`."""
    return {cell_id: found for cell_id in _noted(root) if (found := owner(root, cell_id)) is not None}


def abandoned(root: str | Path) -> dict[str, dict[str, str]]:
    """The owners, which are gone, of cells whose measurement did not end, by cell id.

    Such a cell can have a record from before.
    """
    gone = [cell_id for cell_id in _noted(root) if owner(root, cell_id) is None]
    return {cell_id: found for cell_id in gone if (found := _note(root, cell_id))}


def clean(root: str | Path) -> None:
    """Remove notes left by killed processes about cells that have a record."""
    for cell_id in sorted({*_noted(root)} & {*storage.recorded(root)}):
        if owner(root, cell_id) is None:
            remove_note(root, cell_id)


def remove_note(root: str | Path, cell_id: str) -> None:
    """Remove the note of an owner that is gone, unless the cell is claimed again."""
    with contextlib.suppress(Timeout), FileLock(_folder(root) / f"{cell_id}.lock", timeout=0):
        (_folder(root) / f"{cell_id}.json").unlink(missing_ok=True)


def owner(root: str | Path, cell_id: str) -> dict[str, str] | None:
    """Label, host, process, SLURM job and start time of the process that measures a cell; None if there is none.

    Empty if that process has only just started. A free lock is proof only on the owner's host, as some file systems
    keep locks to one machine; elsewhere the owner also must have been silent for SILENT_S.
    """
    held = _is_held(_folder(root) / f"{cell_id}.lock")
    found = _note(root, cell_id)
    if held:
        return found
    here = held is False and found.get("host") == socket.gethostname()
    return None if here or not found or _is_silent(_folder(root) / f"{cell_id}.json") else found


def _is_held(lock: Path) -> bool | None:
    """Whether a process holds a lock; None if locks cannot be tried here.

    Tried by a shared lock: it needs no permission to write, and two that try do not meet.
    """
    try:
        with opened(lock, follow=False) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _is_silent(note: Path) -> bool:
    try:
        return time.time() - note.stat().st_mtime > SILENT_S
    except OSError:  # removed meanwhile
        return True


def _noted(root: str | Path) -> list[str]:
    return [path.stem for path in _folder(root).glob("*.json")]


def _note(root: str | Path, cell_id: str) -> dict[str, str]:
    return {key: str(value) for key, value in read_note(_folder(root) / f"{cell_id}.json").items()}


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
