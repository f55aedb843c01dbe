"""Commands without the seconds of their imports: a server imports everything once, and each command is a fork of it.

What runs is the command as it is: the module that `python -m` names, or the script, as `__main__`, with its own
arguments, folder, environment and streams, and with a fork server of its own for its cells. Only the imports were made
before. Where these may read what a test sets, or the process itself is what is tested, a test starts a fresh one.

    with Warm(os.environ) as warm: warm.run(["-m", "quantlab.report", "--format", "json"], folder, os.environ)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO

# a cell's process (but for CUDA), the commands, and what these import when they come to it
IMPORTS = """quantlab.grid.preload quantlab.cli.main quantlab.cli.run quantlab.report.plots
quantlab.report.summaries quantlab.tracking mlflow.store.tracking.sqlalchemy_store""".split()
# whatever else is in the environment may have been read as something was imported
HARMLESS = re.compile(r"(QUANTLAB|MLFLOW_TRACKING|PYTEST)_.*|PYTHONPATH|COLUMNS|TMPDIR|PATH|PWD|OLDPWD|SHLVL|_")
REPLACING = ("quantlab", "sitecustomize.py", "usercustomize.py")  # modules of a PYTHONPATH that would come first
# `quantlab` of a PATH: has the server run the script of that name, or does so itself where the imports may differ
SCRIPT = """#!/bin/sh
exec '{python}' -P '{file}' '{folder}' '{script}' "$@"
"""
SOCKET, ENVIRONMENT = "socket", "environment.json"
STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class Warm:
    """The server, started with the first command."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._starting = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="quantlab-warm-", dir="/tmp")  # short enough for a socket
        self._path = Path(self._folder.name)
        self.environment = {name: value for name, value in environment.items() if name != "PYTHONPATH"}

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._folder.cleanup()

    def start(self) -> None:
        """Wait until everything is imported; threads may ask at the same time."""
        with self._starting:
            if self._server is None:
                self._server = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        spin = {} if "OMP_WAIT_POLICY" in self.environment else {"GOMP_SPINCOUNT": "10000"}  # as a grid sets it
        server = subprocess.Popen(
            [sys.executable, __file__, self._folder.name],
            cwd="/", env=spin | self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            # tests that a script runs in the background ignore Ctrl-C, and would hand that down
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        (self._path / ENVIRONMENT).write_text(json.dumps(self.environment))
        return server

    def path(self) -> str:
        """A folder for PATH with a `quantlab` that the server runs."""
        self.start()
        script = self._path / "bin" / "quantlab"
        if not script.exists():
            script.parent.mkdir()
            real = Path(sys.executable).with_name("quantlab")
            script.write_text(
                SCRIPT.format(python=sys.executable, file=__file__, folder=self._folder.name, script=real)
            )
            script.chmod(0o755)
        return str(script.parent)

    def can_run(self, folder: Path, environment: Mapping[str, str]) -> bool:
        """Whether the imports would be the same in a fresh process."""
        return _imports_alike(self.environment, folder, environment)

    def run(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float = 280
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run([sys.executable, *arguments], …)` gives, with what was printed.

        Raises:
            subprocess.TimeoutExpired: the command is killed.
        """
        self.start()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
            streams = [stream.fileno() for stream in (nothing, out, err)]
            process = Started(self._path, arguments, folder, environment, streams)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))

    def popen(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Started:
        """What `subprocess.Popen([sys.executable, *arguments], …)` gives, with stdout and stderr in one pipe."""
        self.start()
        ours, theirs = os.pipe()
        with open(os.devnull, "rb") as nothing, open(theirs, "wb") as stream:
            streams = [nothing.fileno(), stream.fileno(), stream.fileno()]
            return Started(self._path, arguments, folder, environment, streams, open(ours, encoding="utf-8"))


def _imports_alike(own: Mapping[str, str], folder: Path, environment: Mapping[str, str]) -> bool:
    if any(not HARMLESS.fullmatch(name) for name, _ in own.items() ^ environment.items()):
        return False
    path = [str(folder), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    return not any(Path(part, name).exists() for part in path if part for name in REPLACING)


class Started:
    """A command that runs: the part of `subprocess.Popen` that tests use."""

    returncode: int | None = None

    def __init__(
        self, server: Path, arguments: Sequence[str], folder: Path, environment: Mapping[str, str],
        streams: Sequence[int], stdout: TextIO | None = None,
    ) -> None:  # fmt: skip
        self.arguments, self.stdout, self._said = arguments, stdout, ""
        self._asked = socket.socket(socket.AF_UNIX)
        self._asked.connect(str(server / SOCKET))
        request = {"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}
        socket.send_fds(self._asked, [b"streams"], streams)
        self._asked.sendall(json.dumps(request).encode() + b"\n")
        self.pid = int(self._line(None))

    def _line(self, timeout: float | None) -> str:
        deadline = None if timeout is None else time.monotonic() + timeout
        while "\n" not in self._said:
            self._asked.settimeout(deadline and max(1e-3, deadline - time.monotonic()))
            self._said += self._asked.recv(100).decode()
        line, _, self._said = self._said.partition("\n")
        return line

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, as `subprocess` has it."""
        if self.returncode is None:
            try:
                self.returncode = int(self._line(timeout))
            except TimeoutError:
                raise subprocess.TimeoutExpired(list(self.arguments), timeout or 0) from None
            self._asked.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(1e-3)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What is left of its output; the time is that of what runs after it was closed."""
        assert self.stdout is not None
        with self.stdout:
            said = self.stdout.read()
        self.wait(timeout)
        return said, None

    def send_signal(self, number: int) -> None:
        """Nothing, once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """See `send_signal`."""
        self.send_signal(signal.SIGKILL)


def _as_script(server: Path, arguments: Sequence[str]) -> NoReturn:
    """What the `quantlab` of `Warm.path` does."""
    if not _imports_alike(json.loads((server / ENVIRONMENT).read_text()), Path.cwd(), os.environ):
        os.execv(arguments[0], arguments)
    sys.exit(Started(server, arguments, Path.cwd(), os.environ, [0, 1, 2]).wait())


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode().replace("\r\n", "\n")


def _serve(folder: Path) -> dict[str, Any]:
    """Import, and fork for each request; returns in the fork, with what is asked for.

    The server runs no operator, as a grid's own fork server: a fork of it is a clean process.
    """
    for name in IMPORTS:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / SOCKET))
        listener.listen()
        print("ready", flush=True)
        while True:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            ready, _, _ = select.select([listener, 0], [], [], 1)
            if 0 in ready:  # the tests have ended
                os._exit(0)
            if listener in ready:
                ask, _ = listener.accept()
                if _forked() == 0:
                    listener.close()
                    return _fork(ask)
                ask.close()


def _forked() -> int:
    """As `os.fork`, without the warning that Python 3.12 has of threads; those of OpenBLAS know what a fork is."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return os.fork()


def _fork(ask: socket.socket) -> dict[str, Any]:
    """Start the command's process, wait for it and say how it ended; returns in that process."""
    _, streams, _, _ = socket.recv_fds(ask, len(b"streams"), 3)
    with ask.makefile() as asked:
        request: dict[str, Any] = json.loads(asked.readline())
    if pid := _forked():
        for stream in streams:
            os.close(stream)
        ask.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            ask.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    ask.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return request


def _become(request: dict[str, Any]) -> None:
    """Be the process that a shell would have started."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    tempfile.tempdir = None
    arguments = request["arguments"]
    first = request["folder"] if arguments[0] == "-m" else str(Path(arguments[0]).parent)
    more = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [first, *more, *sys.path[1:]]
    importlib.invalidate_caches()
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        stream = os.fdopen(number, before.mode, -1, before.encoding, before.errors, closefd=False)
        stream.reconfigure(line_buffering=before.line_buffering, write_through=before.write_through)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _fork_forkservers() -> None:
    """Have multiprocessing's fork server be a fork of this process as it is now, instead of a fresh one.

    It is forked beforehand, for a process that has threads must not be, and waits for the order to begin.
    """
    from multiprocessing import util

    ours, theirs = socket.socketpair()
    waiting = _forked()
    if not waiting:
        ours.close()
        _wait_for_order(theirs)
    theirs.close()
    spawn = util.spawnv_passfds

    def spawn_or_order(path: Any, args: Any, passfds: Any) -> int:
        if "multiprocessing.forkserver" not in args[-1]:
            return int(spawn(path, args, passfds))
        util.spawnv_passfds = spawn  # there is one to order; a second server is started as ever
        order = {"environment": dict(os.environ), "folder": os.getcwd(), "fds": list(passfds), "do": args[-1],
                 "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
                 "ignored": [number for number in STOPS if signal.getsignal(number) is signal.SIG_IGN]}  # fmt: skip
        socket.send_fds(ours, [b"fds"], passfds)
        ours.sendall(json.dumps(order).encode() + b"\n")
        ours.close()
        return waiting

    util.spawnv_passfds = spawn_or_order


def _wait_for_order(order: socket.socket) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which are not meant for it yet
    said, fds, _, _ = socket.recv_fds(order, len(b"fds"), 2)
    if not said:
        os._exit(0)  # the command had no cell to run
    with order.makefile() as lines:
        asked = json.loads(lines.readline())
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    for number in STOPS:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else usual)
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    order.close()
    spare = 200  # above what is open, so that none is overwritten before it has moved
    for place, fd in enumerate(fds):
        os.dup2(fd, spare + place)
        os.close(fd)
    for place, number in enumerate(asked["fds"]):
        os.dup2(spare + place, number)
        os.close(spare + place)
    code = 0
    try:
        exec(asked["do"], {})
    except SystemExit:
        pass
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    os._exit(code)


def _run(arguments: list[str]) -> None:
    import runpy

    if arguments[0] == "-m":
        sys.argv = ["-m", *arguments[2:]]
        runpy._run_module_as_main(arguments[1])
    else:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")


def _leave() -> NoReturn:
    """Run the command, and end as Python does, but for taking every module apart."""
    import atexit

    code: Any = 0
    try:
        _run(request["arguments"])
    except SystemExit as leaving:
        code = leaving.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = 120  # as Python has it
    os._exit(code or 0)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _as_script(Path(sys.argv[1]), sys.argv[2:])
    request = _serve(Path(sys.argv[1]))
    _become(request)
    _fork_forkservers()
    _leave()
