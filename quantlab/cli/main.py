"""The console script: `quantlab <name>` is `python -m quantlab.<name>`."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from quantlab.util.console import COMMANDS, MISUSED, warn
from quantlab.util.entry import enter
from quantlab.util.errors import did_you_mean

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
