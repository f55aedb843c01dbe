"""One fresh process per cell, forked from a server that has torch and transformers imported already.

The server never runs an operator and never touches a GPU, so a fork of it is a clean process that starts in
milliseconds; a cell that segfaults, hangs or is killed takes nothing with it.
"""

from __future__ import annotations

import contextlib
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

if TYPE_CHECKING:  # quantlab.measurement.cell imports torch, which is not for the parent
    from multiprocessing.context import ForkServerProcess

    from quantlab.measurement.cell import Progress
    from quantlab.recogniser.fingerprints import Identity

# to stop, that the time limit is near, that the terminal is closed
SCHEDULERS_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
SPIN_COUNT = 10_000  # turns of a waiting thread, tens of µs; docs/explanation/timing.md has what others cost
SOCKET_PATH_BYTES = 107  # the longest path of a Unix socket on Linux, unix(7)
SOCKET_NAME_BYTES = 32  # of what multiprocessing adds to the folder: /pymp-xxxxxxxx/listener-xxxxxxxx, and one to spare
STILL_S = 60.0  # a cell that says nothing for so long is shown to be still there
LOG_TAIL_CHARS = 20_000  # of a dead cell's output, kept as its traceback; Python's own post mortem takes 10,000


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result."""

    status: Status
    reason: str  # one line
    traceback: str | None = None
    receipt: Receipt | None = None


class Runner(Protocol):
    """What a grid measures with; see `Workers`."""

    def start(self) -> None: ...

    def run(
        self, config: RunConfig, log: Path, progress: Progress, known: Identity | None = None
    ) -> CellResult | Failure: ...


class Workers:
    """Runs cells one at a time, each in a process of its own."""

    def __init__(self) -> None:
        _spin_less_long()
        # it is started again and nothing is lost: cells share no semaphore with the grid
        warnings.filterwarnings("ignore", message="resource_tracker: process died unexpectedly")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["quantlab.grid.preload"])

    def start(self) -> None:
        """Start the server and wait until it has imported everything.

        A scheduler sends its signals to every process of a job, and a terminal to all that it started. The server, the
        cells and multiprocessing's resource tracker are started with those blocked, so that a cell ends when the grid
        ends it, and not before, which would look like a failure of its own.
        """
        process = self._context.Process(target=_nothing)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SCHEDULERS_SIGNALS)
        try:
            resource_tracker.ensure_running()  # the tracker ignores SIGTERM, but no other; unblocks SIGTERM on the way
            signal.pthread_sigmask(signal.SIG_BLOCK, SCHEDULERS_SIGNALS)
            with _room_for_a_socket(), _without_main():
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        process.join()

    def run(
        self, config: RunConfig, log: Path, progress: Progress, known: Identity | None = None
    ) -> CellResult | Failure:
        """Measure a cell in a process of its own.

        Args:
            config: the cell; `timeout_s` bounds the whole of it.
            log: the file that gets what the cell and its libraries print.
            progress: called in this process with what the cell reports.
            known: see `run_cell`.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = self._context.Pipe()
        oom_kills = _oom_kills()
        process = self._context.Process(target=_work, args=(config, str(log), theirs, known))
        try:
            with _without_main():
                process.start()
            theirs.close()
            outcome = _listen(process, ours, config.timeout_s, progress)
        finally:
            _kill(process)
            ours.close()
            _hide_secrets(log)
        return outcome or _post_mortem(process.exitcode, log, _oom_kills() > oom_kills)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A block in which a process that is started does not import `__main__` again, as multiprocessing has it do.

    No cell needs it, and the script of somebody who calls `quantlab.run` would run once more in every cell.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _room_for_a_socket() -> Iterator[None]:
    """A block in which multiprocessing puts the server's socket where its path fits, however long TMPDIR is.

    Clusters give each job a folder of its own, a long way down. The server's socket is the one that is made by a path;
    what a cell writes to temporary files goes where TMPDIR says all the same.

    Raises:
        ConfigError: no folder for temporary files has a path that is short enough.
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
    """`run_cell`, with whatever it raises turned into a failure."""
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
        return "oom"  # the CPU allocator of torch raises a plain RuntimeError
    return "unsupported" if isinstance(error, UnsupportedError) else "failed"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return text if type(error).__module__.startswith("quantlab") else f"{type(error).__name__}: {text}"


def _listen(
    process: ForkServerProcess, pipe: Connection, timeout_s: float, progress: Progress
) -> CellResult | Failure | None:
    """Block until the cell has sent its result, died (None) or run out of time."""
    deadline = time.monotonic() + timeout_s
    last: tuple[str, int, int] = ("start", 0, 0)
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        ready = wait([pipe, process.sentinel], timeout=min(left_s, STILL_S))
        if not ready and left_s > STILL_S:
            progress(*last)  # so that whoever shows it can say that it goes on
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
    """What a library prints is not ours to choose: an address with its password, its whole environment."""
    with contextlib.suppress(OSError):
        text = log.read_text(errors="replace")
        if (clean := redact(text)) != text:
            log.write_text(clean)


def _kill(process: ForkServerProcess) -> None:
    """End the cell and what it started: it leads a process group of its own."""
    if process.pid is None:
        return  # interrupted before it began
    if process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()  # not its own leader yet, or gone
    process.join()


def _post_mortem(exitcode: int | None, log: Path, memory_ran_out: bool) -> Failure:
    tail = log.read_text(errors="replace")[-LOG_TAIL_CHARS:] if log.exists() else ""
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        if -exitcode == signal.SIGKILL and memory_ran_out:
            return Failure("oom", "killed by the system: out of memory", tail)
        return Failure("failed", f"the cell's process was killed by {name}; its output: {log}", tail)
    return Failure("failed", f"the cell's process ended with exit code {exitcode}; its output: {log}", tail)


def _oom_kills() -> int:
    """Processes that Linux killed for memory since boot; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _spin_less_long() -> None:
    """OpenMP's threads spin while they wait for each other; on a shared core that holds up the one waited for.

    Fewer turns than the 300,000 of libgomp before they sleep: a core that is free then costs as much as
    before. Read once, when torch is imported, so the server has to be started with it. What the caller's environment
    says wins; the record tells which it was.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def _nothing() -> None:
    """The target of the process that only waits for the server's imports."""


def _work(config: RunConfig, log: str, pipe: Connection, known: Identity | None) -> None:
    """What the cell's process does."""
    _start_process_group()
    _exit_with_parent()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    pipe.send(attempt(config, _throttled(lambda stage, done, total: pipe.send((stage, done, total))), known))
    pipe.close()
    sys.stdout.flush()
    leaving: Any = util  # what is private has no types
    leaving._run_finalizers(0)  # semaphores of libraries (tqdm makes one), which the resource tracker would call leaked
    os._exit(0)  # tearing torch down costs half a second and nothing is left to save


def _start_process_group() -> None:
    """So that Ctrl-C reaches the parent alone, which then ends this group with all it started."""
    os.setsid()


def _exit_with_parent() -> None:
    """So that `kill -9` of the grid leaves no cell behind, which would spoil the timings of the next one.

    The kernel's own signal for this (prctl PR_SET_PDEATHSIG) tells of the fork server's death alone, and the server
    lives as long as a cell does. A thread that sleeps on a pipe costs nothing.
    """
    grid = multiprocessing.parent_process()
    assert grid is not None

    def watch() -> None:
        wait([grid.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _throttled(send: Progress, interval_s: float = 0.5) -> Progress:
    """At most one message per interval and stage: each wakes the parent beside the cell."""
    last_stage, last_s = "", 0.0

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last_stage, last_s
        now_s = time.monotonic()
        if stage != last_stage or now_s - last_s >= interval_s:
            last_stage, last_s = stage, now_s
            send(stage, done, total)

    return report
