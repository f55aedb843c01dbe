"""Terminal output shared by all commands: the list of commands, messages, exit codes, encoding."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from quantlab.util.printable import printable
from quantlab.util.redact import redact

if TYPE_CHECKING:
    from rich.console import Console

SECTIONS = {  # section → command → what it does
    "Measure": {
        "run": "measure a grid of cells; may be left out before keys: quantlab quant=hqq_int4",
        "fetch": "download checkpoints and corpora to this machine, so that jobs need no network",
        "allocate": "choose the bits of each module within a size, and write them as a recipe for quant=recipe",
        "status": "show the state of every cell: recorded, running, pending in a SLURM queue, lost",
        "forget": "remove the records of some cells, or of all that failed",
    },
    "Read results": {
        "report": "print the cells measured so far: a table, a document, a page, CSV or JSON",
        "worst": "list the utterances that a quantized model gets worse, word by word",
        "recommend": "choose the cell to deploy within limits of size, accuracy and speed",
        "gate": "compare cells with a baseline: is this model, version or checkpoint worse than what we had?",
        "baseline": "pack measured cells into a small file to commit, for gate",
        "verify": "recompute every figure of the records from their raw data, and report differences",
        "rescore": "score the recorded hypotheses again with another normaliser, scorer or keywords",
    },
    "Export and combine": {
        "export": "write the models of measured cells to folders from which they can be loaded",
        "bundle": "make a folder that measures exported models on a machine without quantlab",
        "merge": "copy the records of several folders, or of bundles that measured, into one",
        "sync": "copy the records into MLflow, once each: after a server outage, or from another machine",
    },
    "Submit to SLURM yourself": {
        "sbatch": "print a script that runs a grid as an array of SLURM jobs",
        "work": "measure one task of such an array; called by the script",
    },
}
COMMANDS = {name: what for section in SECTIONS.values() for name, what in section.items()}
LINE_BREAK = "\n"
NO, MISUSED = 1, 2  # exit codes: the answer is no or there is no data; the command was misused


LOG = logging.getLogger("quantlab")


def warn(message: str) -> None:
    """Say it in one line, through Python's logging: a program may silence or keep it, a command prints it on stderr."""
    LOG.warning("%s", printable(redact(message)))


class _OnStderr(logging.Handler):
    """Logging handler for the current standard error, which keeps stdout for the answer."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"quantlab: {record.getMessage()}", file=sys.stderr)


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """Print warnings of a command within the block, and only once, even if a library has set up the root logger."""
    handler, propagate = _OnStderr(), LOG.propagate
    LOG.addHandler(handler)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.propagate = propagate
        LOG.removeHandler(handler)


def refuse(error: Exception) -> int:
    """Print what is wrong with the command line, one line per mistake, and return MISUSED."""
    print(f"quantlab: {printable(redact(str(error)), keep=LINE_BREAK)}", file=sys.stderr)
    return MISUSED


def tell(answer: object) -> None:
    """Print one line of the answer on stdout."""
    print(printable(redact(str(answer))), flush=True)


def console(stderr: bool = False, file: IO[str] | None = None, **options: Any) -> Console:
    """A rich console without markup: `[red]` in a name is printed as it is."""
    from rich.console import Console  # imported late: slow

    return Console(stderr=stderr, file=file, markup=False, emoji=False, highlight=False, **options)


@contextlib.contextmanager
def libraries_silent() -> Iterator[None]:
    """Within the block, nothing reaches the terminal: libraries log, warn and print there, some of them from C."""
    kept = {number: os.dup(number) for number in (1, 2)}
    _flush()
    try:
        with Path(os.devnull).open("wb") as nowhere:
            for number in kept:
                os.dup2(nowhere.fileno(), number)
        yield
    finally:
        _flush()
        for number, original in kept.items():
            os.dup2(original, number)
            os.close(original)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """Within the block, characters that the terminal lacks print as "?", and a closed pipe (head, less) is no error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # of a file read within the block, not of stdout
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else closing stdout at exit complains
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror) from None
