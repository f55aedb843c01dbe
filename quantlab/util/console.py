"""What every command shares: which there are, how they speak, what a terminal can take."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from quantlab.util.printable import printable
from quantlab.util.redact import redact

if TYPE_CHECKING:
    from rich.console import Console

SECTIONS = {  # of the commands: name → what it does
    "Measure": {
        "run": "measure a grid of cells; may be left out before keys: quantlab quant=hqq_int4",
        "fetch": "put checkpoints and corpora on this machine, so that jobs need no network",
        "status": "say where every cell is: recorded, running, pending in a queue of SLURM, lost",
    },
    "Read what was measured": {
        "report": "print the cells measured so far: a table, a document, a page, CSV or JSON",
        "recommend": "say which of them to deploy within limits of size, accuracy and speed",
        "verify": "compute every figure of the records again from their raw data, and say what differs",
        "rescore": "score the recorded hypotheses again by another normaliser or scorer",
    },
    "Keep and pass on": {
        "export": "leave the models of measured cells as folders that can be loaded again",
        "merge": "copy the records of several folders into one",
        "sync": "bring the records into MLflow, once each: what a server missed, or another machine measured",
    },
    "SLURM by hand": {
        "sbatch": "print a script that runs a grid as an array of SLURM jobs",
        "work": "measure one task of such an array; the script calls it",
    },
}
COMMANDS = {name: what for section in SECTIONS.values() for name, what in section.items()}
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
