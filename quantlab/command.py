"""The console script: `quantlab <name>` is `python -m quantlab.<name>`."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from quantlab.commandline import MISUSED, warn
from quantlab.entry import enter
from quantlab.errors import did_you_mean

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
GRID = "python -m quantlab -m model=nano quant=none,torch_int8"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of quantlab.

    Returns:
        The exit code: 0 after the list of commands, 2 for a name that is none. A command leaves through
        `SystemExit` with its own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0
    name, *rest = given
    if name not in COMMANDS:
        warn(_no_such(name, given))
        return MISUSED
    sys.argv = [f"quantlab {name}", *rest]
    runpy.run_module(f"quantlab.{name}", run_name="__main__", alter_sys=True)
    return 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {line}" for name, line in COMMANDS.items()]
    return "\n".join(
        [
            "Measure a grid of quantized speech recognisers:",
            f"  {GRID}",
            "  python -m quantlab --help",
            "",
            "What is beside it, as `quantlab <name>` or `python -m quantlab.<name>` (each has --help):",
            *lines,
        ]
    )


def _no_such(name: str, given: Sequence[str]) -> str:
    if name.startswith("-") or "=" in name:
        return f"the grid is run by: python -m quantlab {' '.join(given)}"
    return f"no command {name!r}{did_you_mean(name, list(COMMANDS))}"


if __name__ == "__main__":
    enter(main)
