"""The console script: `quantlab <name>` is `python -m quantlab.<name>`."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from quantlab.config import did_you_mean

MISUSED = 2  # exit code
# Offered once its module is there.
COMMANDS = {
    "report": "print the cells measured so far: a table, or JSON",
    "recommend": "say which quantization to deploy, and why not the others",
    "rescore": "compute every score again from the raw hypotheses",
    "verify": "compute every figure of the records again and compare",
    "status": "say what of a grid is done, failed or left",
    "sync": "bring records into MLflow that it does not show yet",
    "fetch": "download a checkpoint or a corpus ahead of time",
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
    if name not in _commands():
        print(f"quantlab: {_no_such(name, given)}", file=sys.stderr)
        return MISUSED
    sys.argv = [f"quantlab {name}", *rest]
    runpy.run_module(f"quantlab.{name}", run_name="__main__", alter_sys=True)
    return 0


def _commands() -> dict[str, str]:
    return {name: line for name, line in COMMANDS.items() if find_spec(f"quantlab.{name}") is not None}


def _help() -> str:
    found = _commands()
    width = max(map(len, found))
    lines = [f"  {name:{width}}  {line}" for name, line in found.items()]
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
    return f"no command {name!r}{did_you_mean(name, list(_commands()))}"


if __name__ == "__main__":
    sys.exit(main())
