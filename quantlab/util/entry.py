"""Start and end of every command: signals, output streams, one-line errors.

Imports nothing slow, so that signals in the first second are handled too.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TextIO, cast

INTERRUPTED = 130  # exit code, whatever the signal was
FAILED, MISUSED = 1, 2  # exit codes
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a scheduler, a closed terminal


def enter(main: Callable[[], int] | str) -> NoReturn:
    """Run a command and exit with its code.

    Args:
        main: the function, or the module with `main`, which is imported after the signal handlers are set.
    """
    unify_stop_signals()
    try:
        _open_streams()
        code = _code_of(_main_function(main) if isinstance(main, str) else main)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        ignore_stops()  # a second signal must not cut the last line short
        code = _last("interrupted: run the same command for the rest", INTERRUPTED)
    except BrokenPipeError:  # the reader closed the pipe
        code = 0
    except OSError as error:
        code = _last(_os_error_line(error), FAILED)
    except Exception as error:  # a bug; the traceback may hold secrets
        from quantlab.util.redact import redact

        code = _last(redact("".join(traceback.format_exception(error)).rstrip()), FAILED)
    _quiet_stdout()
    sys.exit(code)


def unify_stop_signals() -> None:
    """Handle every stop signal like Ctrl-C, except those ignored at the start (nohup)."""
    for name in STOPS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def ignore_stops() -> None:
    """Ignore stop signals from now on, as little is left to do."""
    for name in STOPS:
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)


def _main_function(module: str) -> Callable[[], int]:
    import importlib

    found: Callable[[], int] = importlib.import_module(module).main
    return found


def _open_streams() -> None:
    """Make sure that the standard streams are open, so that no file opened later takes the place of one.

    A standard error that cannot be written (disk full, reader gone) does not end the command.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    sys.stderr = cast(TextIO, _Deaf(sys.stderr or io.StringIO()))
    if sys.stdout is None:
        _last("standard output is closed: redirect it to a file or /dev/null", MISUSED)
        sys.exit(MISUSED)


def _code_of(main: Callable[[], int]) -> int:
    try:
        return main()
    except SystemExit as leaving:  # from argparse, or from a job stopped by SLURM
        if isinstance(leaving.code, str):
            return _last(leaving.code, FAILED)
        return leaving.code or 0


class _Deaf:
    """A stream that ignores write errors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _os_error_line(error: OSError) -> str:
    if error.filename is None:
        return f"the output cannot be written: {error.strerror}"
    return f"{error.filename}: {error.strerror}"


def _last(line: str, code: int) -> int:
    from quantlab.util.printable import printable

    print(f"quantlab: {printable(line)}", file=sys.stderr, flush=True)
    return code


def _quiet_stdout() -> None:
    """Discard unwritten output, which Python would try to write again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
