"""A cell's process as seen by the grid: its progress, its result, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.grid.attempt import Failure, Outcome
from quantlab.records.schema import CellResult
from quantlab.util.redact import redact

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from quantlab.measurement.cell import Progress

STILL_S = 60.0  # after so long without a message, a cell's last progress is repeated
LOG_TAIL_CHARS = 20_000  # of a dead cell's output, kept as its traceback; faulthandler's dump takes 10,000
KIB = 1024  # bytes


class Running:
    """A cell that is being measured in its own process.

    Args:
        process: not started yet.
        pipe: our end of its pipe.
        log: file for the output of the cell and its libraries.
        timeout_s: limit of its total time.
        progress: called in this process with the cell's progress.
    """

    def __init__(
        self, process: ForkServerProcess, pipe: Connection, log: Path, timeout_s: float, progress: Progress
    ) -> None:
        self.process = process
        self._pipe = pipe
        self._log = log
        self._timeout_s = timeout_s
        self._progress = progress
        self._last: tuple[str, int, int] = ("start", 0, 0)
        self._oom_kills = _oom_kills()
        self._outcome: Outcome | None = None
        self.ended = False
        self.peak_bytes = 0  # of its resident set, as far as seen at its messages
        now_s = time.monotonic()
        self._deadline_s, self._told_s = now_s + timeout_s, now_s

    @property
    def sources(self) -> Sequence[Any]:
        """What becomes ready when the cell has sent a message or ended."""
        return [self._pipe, self.process.sentinel]

    def left_s(self) -> float:
        """Seconds until something is due although the cell says nothing."""
        return max(0.0, min(self._deadline_s, self._told_s + STILL_S) - time.monotonic())

    def listen(self, ready: Collection[Any]) -> None:
        """Take note of what is ready, and of the time: afterwards `ended` tells whether the cell is done."""
        if self._pipe in ready:
            self._receive()
        elif self.process.sentinel in ready:
            self.ended = True
        elif time.monotonic() >= self._deadline_s:
            self._outcome = Failure("timeout", f"not done within timeout_s={self._timeout_s:g}")
            self.ended = True
        elif not self.left_s():
            self._tell()  # shows that the cell is still running

    def _receive(self) -> None:
        try:
            message = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.ended = True
            return
        self.peak_bytes = max(self.peak_bytes, resident_bytes(self.process.pid, "VmHWM"))
        if isinstance(message, (CellResult, Failure)):
            self._outcome, self.ended = message, True
            return
        self._last = message
        self._tell()

    def _tell(self) -> None:
        self._told_s = time.monotonic()
        self._progress(*self._last)

    def kill(self) -> None:
        """Kill the cell's process and all its children; nothing if it is gone."""
        kill(self.process)
        self._pipe.close()
        _hide_secrets(self._log)

    def outcome(self) -> Outcome:
        """The outcome of a cell that has ended; one that has sent none has crashed."""
        return self._outcome or _crash_failure(self.process.exitcode, self._log, _oom_kills() > self._oom_kills)


class Ended:
    """A cell that was measured in this process, and so has ended."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.ended = True
        self.peak_bytes = 0

    @property
    def sources(self) -> Sequence[Any]:
        return []

    def left_s(self) -> float:
        return 0.0

    def listen(self, ready: Collection[Any]) -> None: ...

    def kill(self) -> None: ...

    def outcome(self) -> Outcome:
        return self._outcome


def listen_to(some: Sequence[Running | Ended]) -> None:
    """Sleep until one of these cells has sent a message, ended or reached a time limit, and take note of it."""
    if any(item.ended for item in some):
        return
    ready = wait([source for item in some for source in item.sources], timeout=min(item.left_s() for item in some))
    for item in some:
        item.listen(ready)


def kill(process: ForkServerProcess) -> None:
    """Kill a process group of `Workers`, which includes all children of its process."""
    if process.pid is None:
        return  # interrupted before it started
    if process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()  # not a group leader yet, or gone
    process.join()


def resident_bytes(pid: int | None, which: str = "VmRSS") -> int:
    """Resident set of a process: now, or its peak (`VmHWM`), proc(5); 0 if unknown."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * KIB for line in lines if line.startswith(f"{which}:")), 0)


def _hide_secrets(log: Path) -> None:
    """Redact a cell's log, as libraries may print addresses with passwords or the environment."""
    with contextlib.suppress(OSError):
        text = log.read_text(errors="replace")
        if (clean := redact(text)) != text:
            log.write_text(clean)


def _crash_failure(exitcode: int | None, log: Path, memory_ran_out: bool) -> Failure:
    tail = log.read_text(errors="replace")[-LOG_TAIL_CHARS:] if log.exists() else ""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        if -exitcode == signal.SIGKILL and memory_ran_out:
            return Failure("oom", "killed by the system: out of memory", tail)
        return Failure("failed", f"the cell's process was killed by {name}; its output: {log}", tail)
    return Failure("failed", f"the cell's process ended with exit code {exitcode}; its output: {log}", tail)


def _oom_kills() -> int:
    """Number of out-of-memory kills since boot; 0 if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
