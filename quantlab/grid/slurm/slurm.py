"""Calls of SLURM's commands. Exit codes of jobs are not relied on: a cell is done only if it has a record."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

PATIENCE_S = 30.0  # time limit of a query; a busy controller is slow
DEFAULT_ARRAY_SIZE = 1001  # default of MaxArraySize, slurm.conf(5)
GONE, UNKNOWN = "GONE", "UNKNOWN"  # quantlab's own states: SLURM no longer knows the job; SLURM does not answer
ENDED = frozenset(  # squeue(1), JOB STATE CODES: final unless someone requeues the job
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT".split()
) | {GONE}


@dataclass(frozen=True)
class Job:
    """One job of an array, as reported by squeue or sacct."""

    id: str  # 123_4
    state: str  # PENDING, RUNNING, …
    reason: str = ""  # why it waits or ended, if SLURM tells
    node: str = ""
    name: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def is_here() -> bool:
    """Whether SLURM's commands are available."""
    return shutil.which("squeue") is not None


def queue(ids: Collection[str], names: Collection[str] = ()) -> dict[str, Job] | None:
    """Jobs that the controller knows: pending, running, or ended a few minutes ago.

    Args:
        ids: ids of jobs or of whole arrays.
        names: names of jobs whose ids are unknown.

    Returns:
        Jobs by id; None if SLURM is not available or does not answer.
    """
    found: dict[str, Job] = {}
    for option, wanted in (("--jobs", ids), ("--name", names)):
        if wanted:
            jobs = _squeue(f"{option}={','.join(sorted(wanted))}")
            if jobs is None:
                return None
            found |= {job.id: job for job in jobs}
    return found


def _squeue(selection: str) -> list[Job] | None:
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%N|%j", selection]
    done = _run(command)
    if done is None:
        return None
    if done.returncode:  # a query for a single job that is long gone is an error
        return [] if "Invalid job id" in done.stderr else None
    lines = [line.split("|") for line in done.stdout.splitlines()]
    return [Job(id, state, _reason(reason), node, name) for id, state, reason, node, name in lines]


def _reason(reason: str) -> str:
    return "" if reason == "None" else reason


def history(ids: Collection[str]) -> dict[str, Job]:
    """Jobs known to accounting; empty on a cluster without accounting."""
    if not ids or shutil.which("sacct") is None:
        return {}
    options = ["--noheader", "--parsable2", "--allocations", "--format=JobID,State"]
    done = _run(["sacct", *options, f"--jobs={','.join(sorted(ids))}"])
    if done is None or done.returncode:
        return {}
    found = {}
    for line in done.stdout.splitlines():
        id, _, state = line.partition("|")
        if state:
            word, _, more = state.partition(" ")  # CANCELLED by 1000
            found[id] = Job(id, word, more)
    return found


@dataclass(frozen=True)
class Limit:
    """Time limit of a running job, which may have been changed since submission."""

    text: str  # as squeue prints it, 1-02:00:00
    left_s: float


def limit_of(job_id: str) -> Limit | None:
    """Time limit of a job; None if it has none, or SLURM does not answer."""
    done = _run(["squeue", "--noheader", "--format=%l|%L", f"--jobs={job_id}"])
    text, _, left = (done.stdout if done and not done.returncode else "").strip().partition("|")
    left_s = _seconds(left)
    return None if left_s is None else Limit(text, left_s)


def _seconds(text: str) -> float | None:
    """Convert days-hours:minutes:seconds to seconds; None for other values (INVALID, UNLIMITED, NOT_SET)."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


class RefusedError(Exception):
    """A script that sbatch did not accept; the message is its first error."""


def submit(script: str) -> str:
    """Give a script to sbatch.

    Returns:
        The id of the job or of the whole array.

    Raises:
        RefusedError: sbatch did not accept it.
    """
    try:
        done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RefusedError(str(error)) from None
    id = done.stdout.strip().partition(";")[0]  # 12;name-of-the-cluster, where there are several
    if done.returncode or not id.isdecimal():
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
        raise RefusedError((errors or lines or [f"exit code {done.returncode}, and no message"])[0])
    return id


def requeue(job_id: str) -> None:
    """Ask for a running job to be started again; it is ended for that."""
    _run(["scontrol", "requeue", job_id])


def max_array_size() -> int:
    """Maximum number of jobs in an array."""
    done = _run(["scontrol", "show", "config"])
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout if done else "", re.MULTILINE)
    return max(1, (int(size[1]) if size else DEFAULT_ARRAY_SIZE) - 1)


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
