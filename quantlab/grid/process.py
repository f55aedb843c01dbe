"""One fresh process per cell, forked from a server that has already imported torch and transformers.

The server never runs an operator or uses a GPU, so its forks are clean processes that start in milliseconds. A cell
that segfaults, hangs or is killed does not affect others.
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
import types
import warnings
from collections.abc import Iterator
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantlab.config.schema import RunConfig
from quantlab.grid.attempt import Outcome, attempt
from quantlab.grid.running import Ended, Running, kill, listen_to
from quantlab.grid.shares import Share
from quantlab.util.errors import ConfigError
from quantlab.util.machine import usable_cores

if TYPE_CHECKING:  # quantlab.measurement.cell imports torch, which the parent avoids
    from quantlab.measurement.cell import Progress
    from quantlab.recogniser.fingerprints import Identity

# to stop, that the time limit is near, that the terminal is closed
SCHEDULERS_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
SPIN_COUNT = 10_000  # spins of a waiting thread, tens of µs; for others see docs/explanation/timing.md
SOCKET_PATH_BYTES = 107  # the longest path of a Unix socket on Linux, unix(7)
SOCKET_NAME_BYTES = 32  # added to the folder by multiprocessing: /pymp-xxxxxxxx/listener-xxxxxxxx, plus one


class Runner(Protocol):
    """Interface of `Workers`."""

    def start(self) -> None: ...

    def begin(
        self, config: RunConfig, log: Path, progress: Progress, known: Identity | None, share: Share | None
    ) -> Running | Ended: ...

    def finish(self, running: Running | Ended) -> Outcome: ...

    def extract(self, config: RunConfig, log: Path, known: Identity) -> None: ...


class InProcess:
    """Runs cells in this process, for debugging."""

    def start(self) -> None:
        """Nothing to start."""

    def begin(
        self, config: RunConfig, log: Path, progress: Progress, known: Identity | None, share: Share | None
    ) -> Ended:
        """Measure a cell; its output is not kept, and no cell is beside it."""
        return Ended(attempt(config, progress, known))

    def finish(self, running: Running | Ended) -> Outcome:
        """See `Workers.finish`."""
        return running.outcome()

    def extract(self, config: RunConfig, log: Path, known: Identity) -> None:
        """Each cell extracts its own features."""


class Workers:
    """Runs cells, each in its own process."""

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

    def begin(
        self,
        config: RunConfig,
        log: Path,
        progress: Progress,
        known: Identity | None = None,
        share: Share | None = None,
    ) -> Running:
        """Start to measure a cell in its own process; the caller listens to it, and in the end kills it.

        Args:
            config: the cell; `timeout_s` limits its total time.
            log: file for the output of the cell and its libraries.
            progress: called in this process with the cell's progress.
            known: see `run_cell`.
            share: what the cell may use of the machine while others run; None: all of it.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_cell_process, args=(config, str(log), theirs, known, share))
        running = Running(process, ours, log, config.timeout_s, progress)
        try:
            with _without_main():
                process.start()
        except BaseException:
            running.kill()
            raise
        finally:
            theirs.close()
        return running

    def finish(self, running: Running | Ended) -> Outcome:
        """The outcome of a cell that has ended; nothing of its process is left."""
        running.kill()
        return running.outcome()

    def extract(self, config: RunConfig, log: Path, known: Identity) -> None:
        """Extract the features of a cell with all cores, before cells run that have a share of them each.

        What goes wrong is left to the cell, which extracts what is missing.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        process = self._context.Process(target=_extraction, args=(config, str(log), known))
        try:
            with _without_main():
                process.start()
            process.join(config.timeout_s)
        finally:
            kill(process)

    def run(self, config: RunConfig, log: Path, progress: Progress, known: Identity | None = None) -> Outcome:
        """Measure a cell: `begin`, listen, `finish`."""
        running = self.begin(config, log, progress, known)
        try:
            while not running.ended:
                listen_to([running])
        finally:
            running.kill()
        return running.outcome()


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


def _cell_process(config: RunConfig, log: str, pipe: Connection, known: Identity | None, share: Share | None) -> None:
    """Main function of the cell's process."""
    _become_own(log, share)
    faulthandler.enable()
    pipe.send(attempt(config, _throttled(lambda stage, done, total: pipe.send((stage, done, total))), known))
    pipe.close()
    sys.stdout.flush()
    leaving: Any = util  # private members have no types
    leaving._run_finalizers(0)  # semaphores of libraries (e.g. tqdm), which the resource tracker would report as leaked
    os._exit(0)  # torch's teardown takes half a second, and nothing is left to save


def _extraction(config: RunConfig, log: str, known: Identity) -> None:
    """Main function of the process that extracts features."""
    _become_own(log)
    from quantlab.engines.clocks import use_threads
    from quantlab.recogniser.assemble import extract

    use_threads(usable_cores())
    extract(config, known.corpus)


def _become_own(log: str, share: Share | None = None) -> None:
    """Separate this process from the grid: its group, its share of the machine, its output."""
    _start_process_group()
    if share is not None:
        share.enter()
    _exit_with_parent()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)


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
