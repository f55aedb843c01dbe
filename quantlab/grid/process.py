"""One fresh process per cell, forked from a server that has already imported torch and transformers.

The server never runs an operator or uses a GPU, so its forks are clean processes that start in milliseconds. A cell
that segfaults, hangs or is killed does not affect others.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantlab.config.schema import RunConfig
from quantlab.records.schema import CellResult, Receipt, Status
from quantlab.util.errors import ConfigError, UnsupportedError
from quantlab.util.redact import redact

if TYPE_CHECKING:  # quantlab.measurement.cell imports torch, which the parent avoids
    from multiprocessing.context import ForkServerProcess

    from quantlab.measurement.cell import Progress
    from quantlab.recogniser.fingerprints import Identity

# to stop, that the time limit is near, that the terminal is closed
SCHEDULERS_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
SPIN_COUNT = 10_000  # spins of a waiting thread, tens of µs; for others see docs/explanation/timing.md
SOCKET_PATH_BYTES = 107  # the longest path of a Unix socket on Linux, unix(7)
SOCKET_NAME_BYTES = 32  # added to the folder by multiprocessing: /pymp-xxxxxxxx/listener-xxxxxxxx, plus one
STILL_S = 60.0  # after so long without a message, a cell's last progress is repeated
LOG_TAIL_CHARS = 20_000  # of a dead cell's output, kept as its traceback; faulthandler's dump takes 10,000


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result."""

    status: Status
    reason: str  # one line
    traceback: str | None = None
    receipt: Receipt | None = None


class Runner(Protocol):
    """Interface of `Workers`."""

    def start(self) -> None: ...

    def run(
        self, config: RunConfig, log: Path, progress: Progress, known: Identity | None = None
    ) -> CellResult | Failure: ...


class Workers:
    """Runs cells one at a time, each in its own process."""

    def __init__(self) -> None:
        _spin_less_long()
        # it is restarted without loss, as cells share no semaphores with the grid
        warnings.filterwarnings("ignore", message="resource_tracker: process died unexpectedly")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["quantlab.grid.preload"])

    def start(self) -> None:
        """Start the server and wait until its imports are done.

        Schedulers and terminals send signals to all processes of a job. The server, the cells and multiprocessing's
        resource tracker start with these signals blocked, so that only the grid ends a cell; otherwise an interrupted
        cell would look failed.
        """
        process = self._context.Process(target=_wait_for_imports)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SCHEDULERS_SIGNALS)
        try:
            resource_tracker.ensure_running()  # the tracker ignores only SIGTERM; also unblocks it
            signal.pthread_sigmask(signal.SIG_BLOCK, SCHEDULERS_SIGNALS)
            with _room_for_a_socket(), _without_main():
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        process.join()

    def run(
        self, config: RunConfig, log: Path, progress: Progress, known: Identity | None = None
    ) -> CellResult | Failure:
        """Measure a cell in its own process.

        Args:
            config: the cell; `timeout_s` limits its total time.
            log: file for the output of the cell and its libraries.
            progress: called in this process with the cell's progress.
            known: see `run_cell`.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = self._context.Pipe()
        oom_kills = _oom_kills()
        process = self._context.Process(target=_cell_process, args=(config, str(log), theirs, known))
        try:
            with _without_main():
                process.start()
            theirs.close()
            outcome = _listen(process, ours, config.timeout_s, progress)
        finally:
            _kill(process)
            ours.close()
            _hide_secrets(log)
        return outcome or _crash_failure(process.exitcode, log, _oom_kills() > oom_kills)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Within the block, processes started by multiprocessing do not import `__main__` again.

    No cell needs it, and a user's script that calls `quantlab.run` would run again in every cell.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _room_for_a_socket() -> Iterator[None]:
    """Within the block, multiprocessing creates the server's socket at a path that is short enough for any TMPDIR.

    Clusters give each job a deeply nested TMPDIR. Only the server's socket is affected; temporary files of cells
    still go to TMPDIR.

    Raises:
        ConfigError: no temporary folder has a short enough path.
    """
    chosen, ours = tempfile.tempdir, tempfile.gettempdir()
    room = SOCKET_PATH_BYTES - SOCKET_NAME_BYTES
    if len(os.fsencode(ours)) <= room:
        yield
        return
    short = next((folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if os.access(folder, os.W_OK)), None)
    if short is None:
        raise ConfigError(f"TMPDIR={ours}: too long for a socket, {room} bytes at most; set it to a shorter path")
    tempfile.tempdir = short
    try:
        yield
    finally:
        tempfile.tempdir = chosen


def attempt(config: RunConfig, progress: Progress, known: Identity | None = None) -> CellResult | Failure:
    """Run `run_cell`, and turn exceptions into a Failure."""
    from quantlab.measurement.cell import run_cell

    try:
        return run_cell(config, progress, known)
    except Exception as error:
        return Failure(
            status=_status(error),
            reason=_one_line(error),
            traceback=traceback.format_exc(),
            receipt=getattr(error, "receipt", None),
        )


def _status(error: Exception) -> Status:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return "oom"  # torch's CPU allocator raises a plain RuntimeError
    return "unsupported" if isinstance(error, UnsupportedError) else "failed"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text += f"; make room in {tempfile.gettempdir()}, or set TMPDIR to a larger folder, unless output_dir is full"
    return text if type(error).__module__.startswith("quantlab") else f"{type(error).__name__}: {text}"


def _listen(
    process: ForkServerProcess, pipe: Connection, timeout_s: float, progress: Progress
) -> CellResult | Failure | None:
    """Wait until the cell has sent its result, died (None) or run out of time."""
    deadline = time.monotonic() + timeout_s
    last: tuple[str, int, int] = ("start", 0, 0)
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        ready = wait([pipe, process.sentinel], timeout=min(left_s, STILL_S))
        if not ready and left_s > STILL_S:
            progress(*last)  # shows that the cell is still running
            continue
        if not ready:
            return Failure("timeout", f"not done within timeout_s={timeout_s:g}")
        if pipe not in ready:
            return None
        try:
            message = pipe.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            return None
        if isinstance(message, (CellResult, Failure)):
            return message
        last = message
        progress(*last)


def _hide_secrets(log: Path) -> None:
    """Redact a cell's log, as libraries may print addresses with passwords or the environment."""
    with contextlib.suppress(OSError):
        text = log.read_text(errors="replace")
        if (clean := redact(text)) != text:
            log.write_text(clean)


def _kill(process: ForkServerProcess) -> None:
    """Kill the cell's process group, which includes all its children."""
    if process.pid is None:
        return  # interrupted before it started
    if process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()  # not a group leader yet, or gone
    process.join()


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


def _spin_less_long() -> None:
    """Reduce the spinning of OpenMP threads, which on a shared core delays the thread they wait for.

    They sleep after fewer spins than libgomp's 300,000, which costs nothing on a free core. The setting is read when
    torch is imported, so it must be set before the server starts. The caller's environment takes precedence; the
    record holds the value.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def _wait_for_imports() -> None:
    """Target of a process that only waits for the server's imports."""


def _cell_process(config: RunConfig, log: str, pipe: Connection, known: Identity | None) -> None:
    """Main function of the cell's process."""
    _start_process_group()
    _exit_with_parent()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    pipe.send(attempt(config, _throttled(lambda stage, done, total: pipe.send((stage, done, total))), known))
    pipe.close()
    sys.stdout.flush()
    leaving: Any = util  # private members have no types
    leaving._run_finalizers(0)  # semaphores of libraries (e.g. tqdm), which the resource tracker would report as leaked
    os._exit(0)  # torch's teardown takes half a second, and nothing is left to save


def _start_process_group() -> None:
    """Start a process group, so that Ctrl-C reaches only the parent, which then ends the whole group."""
    os.setsid()


def _exit_with_parent() -> None:
    """Exit when the grid is killed (`kill -9`), so that no cell is left to disturb later timings.

    The kernel's signal for this (prctl PR_SET_PDEATHSIG) only reports the death of the fork server, which lives as long
    as the cell. A thread that sleeps on a pipe costs nothing.
    """
    grid = multiprocessing.parent_process()
    assert grid is not None

    def watch() -> None:
        wait([grid.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _throttled(send: Progress, interval_s: float = 0.5) -> Progress:
    """Send at most one message per interval and stage, since each wakes the parent during the cell."""
    last_stage, last_s = "", 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last_stage, last_s
        now_s = time.monotonic()
        if stage != last_stage or now_s - last_s >= interval_s:
            last_stage, last_s = stage, now_s
            send(stage, done, total)

    return report
