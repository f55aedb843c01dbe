"""What the commands beside the grid share: the folder of records, values of options, what a terminal can take."""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, NoReturn

from quantlab.util.errors import did_you_mean
from quantlab.util.printable import printable
from quantlab.util.redact import redact

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = {
    "fetch": "put checkpoints and corpora on this machine, so that jobs need no network",
    "report": "print the cells measured so far: a table, a document, a page, CSV or JSON",
    "rescore": "score the recorded hypotheses again by another normaliser or scorer",
    "verify": "compute every figure of the records again from their raw data, and say what differs",
    "status": "say where every cell is: recorded, running, pending in a queue of SLURM, lost",
    "sbatch": "print a script that runs a grid as an array of SLURM jobs",
    "work": "measure one task of such an array; the script calls it",
    "sync": "bring the records into MLflow, once each: what a server missed, or what another machine measured",
    "export": "leave the models of measured cells as folders that can be loaded again",
    "recommend": "say which of them to deploy within limits of size, accuracy and speed",
}
LINE_BREAK = "\n"
NO, MISUSED = 1, 2  # exit codes: the answer is no, or there is nothing to answer from; the question is wrong


def warn(message: str) -> None:
    """Say it on stderr, in one line, so that stdout holds the answer and nothing else."""
    print(f"quantlab: {printable(redact(message))}", file=sys.stderr)


def refuse(error: Exception) -> int:
    """Say what is wrong with the question, a line for each mistake; the exit code is MISUSED."""
    print(f"quantlab: {printable(redact(str(error)), keep=LINE_BREAK)}", file=sys.stderr)
    return MISUSED


def tell(answer: object) -> None:
    """A line of the answer, on stdout."""
    print(printable(redact(str(answer))), flush=True)


def console(stderr: bool = False, file: IO[str] | None = None, **options: Any) -> Console:
    """What rich prints with, and reads no markup of its own in: `[red]` in a name is that name."""
    from rich.console import Console  # takes longer to import than most commands need

    return Console(stderr=stderr, file=file, markup=False, emoji=False, highlight=False, **options)


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """A block that prints: what the terminal has no character for becomes "?", and a reader may leave (head, less)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # of a file that the block reads
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else closing stdout at exit complains
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror) from None


class Parser(argparse.ArgumentParser):
    """Options of a command; a misuse is one line with the nearest option, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Say it, without the usage of many lines."""
        warn(f"{message} ({self.prog} --help)")
        sys.exit(MISUSED)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it, but what is no option is told first: `--fromat` may be why `--format` is missing."""
        given = sys.argv[1:] if args is None else list(args)
        for name in (item.split("=")[0] for item in given[: given.index("--") if "--" in given else None]):
            if name.startswith("--") and not any(known.startswith(name) for known in self._option_string_actions):
                self.error(f"{name}: no such option{did_you_mean(name, self._long_options())}")
        return super().parse_known_args(given, namespace)

    def _long_options(self) -> list[str]:
        return [name for name in self._option_string_actions if name.startswith("--")]


def one_of(what: str, names: Iterable[str]) -> Callable[[str], str]:
    """The type of an option that is one of some names; a near miss is told what it may have meant."""
    allowed = list(names)

    def chosen(name: str) -> str:
        if name not in allowed:
            raise argparse.ArgumentTypeError(f"no {what} {name!r}{did_you_mean(name, allowed)}")
        return name

    return chosen


def positive(text: str) -> float:
    """The type of an option that is a number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return value


def not_negative(text: str) -> float:
    """The type of an option that is 0 or more."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a number, 0 or more")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
