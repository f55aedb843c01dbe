"""Start and end of every command: signals, output streams, one-line errors.

Imports nothing that takes time, so that a signal in the first second finds it ready.
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
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a scheduler, a terminal that is closed


def enter(main: Callable[[], int] | str) -> NoReturn:
    """Run a command and leave with its exit code.

    Args:
        main: what it does, or the module that has `main`, to be imported once signals are taken care of.
    """
    stop_alike()
    try:
        _open_streams()
        code = _code_of(_main_of(main) if isinstance(main, str) else main)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        ignore_stops()  # a second one must not cut the last line
        code = _last("interrupted: the same command does what is left", INTERRUPTED)
    except BrokenPipeError:  # who reads has seen enough
        code = 0
    except OSError as error:
        code = _last(_told(error), FAILED)
    except Exception as error:  # a mistake of ours, whose traceback may hold what it was given
        from quantlab.util.redact import redact

        code = _last(redact("".join(traceback.format_exception(error)).rstrip()), FAILED)
    _quiet_stdout()
    sys.exit(code)


def stop_alike() -> None:
    """Let every signal that stops a command do what Ctrl-C does; one that was ignored at the start stays so (nohup)."""
    for name in STOPS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def ignore_stops() -> None:
    """From now on; what is left to do takes no time."""
    for name in STOPS:
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)


def _main_of(module: str) -> Callable[[], int]:
    import importlib

    found: Callable[[], int] = importlib.import_module(module).main
    return found


def _open_streams() -> None:
    """See that there is something to print to: a file that is opened later must not become standard output.

    What cannot be said on standard error, for its disk is full or its reader has left, costs no result.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stderr = cast(TextIO, _Deaf(sys.stderr or io.StringIO()))
    if sys.stdout is None:
        _last("standard output is closed: let it be a file, or /dev/null", MISUSED)
        sys.exit(MISUSED)


def _code_of(main: Callable[[], int]) -> int:
    try:
        return main()
    except SystemExit as leaving:  # of argparse, and of a job that SLURM stops
        if isinstance(leaving.code, str):
            return _last(leaving.code, FAILED)
        return leaving.code or 0


class _Deaf:
    """A stream that does not mind whether anybody can read it."""

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


def _told(error: OSError) -> str:
    if error.filename is None:
        return f"what it prints cannot be written: {error.strerror}"
    return f"{error.filename}: {error.strerror}"


def _last(line: str, code: int) -> int:
    from quantlab.util.printable import printable

    print(f"quantlab: {printable(line)}", file=sys.stderr, flush=True)
    return code


def _quiet_stdout() -> None:
    """What could not be written is given up, and not tried again by Python as it ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
