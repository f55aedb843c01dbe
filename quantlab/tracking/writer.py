"""Ownership of a run that is being written, in a tag, so that others see whether it will be complete.

MLflow has no such notion: a run whose process was killed is RUNNING for ever.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

import psutil

TAG = "quantlab.writer"
INTERRUPTED = "interrupted: "  # how the reason of a closed run begins
SILENT_S = 15 * 60.0  # a writer on another machine is given up after this; a record is logged in seconds
_SAME_START_S = 2.0  # the clock of a process's start is read with this precision at worst


def me() -> dict[str, Any]:
    """Who we are: `started` (seconds since 1970) tells this process from an earlier one of the same number."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": round(psutil.Process(pid).create_time(), 2)}


def tag() -> dict[str, str]:
    """The tag that a run gets when it is created."""
    return {TAG: json.dumps(me() | {"since": round(time.time())})}


def is_me(tags: dict[str, str]) -> bool:
    """Whether this process began the run."""
    writer = _read(tags)
    return writer is not None and _same_process(writer, me())


def why_gone(tags: dict[str, str]) -> str | None:
    """Why nobody will complete a run that is not complete; None while its writer may be alive."""
    writer = _read(tags)
    if writer is None:
        return f"{INTERRUPTED}it does not say which process wrote it"
    where = f"process {writer['pid']} on {writer['host']}"
    if writer["host"] == me()["host"]:
        return None if _lives(writer) else f"{INTERRUPTED}{where} ended while it wrote this run"
    minutes = (time.time() - writer["since"]) / 60
    return f"{INTERRUPTED}{where} began it {minutes:.0f} minutes before" if minutes * 60 > SILENT_S else None


def _read(tags: dict[str, str]) -> dict[str, Any] | None:
    try:
        found = json.loads(tags[TAG])
        return {"host": str(found["host"]), "pid": int(found["pid"])} | {
            name: float(found[name]) for name in ("started", "since")
        }
    except (KeyError, TypeError, ValueError):
        return None


def _lives(writer: dict[str, Any]) -> bool:
    try:
        started = psutil.Process(writer["pid"]).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return abs(started - writer["started"]) <= _SAME_START_S


def _same_process(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = one["host"] == other["host"] and one["pid"] == other["pid"]
    return same and abs(one["started"] - other["started"]) <= _SAME_START_S
