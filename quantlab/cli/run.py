"""The entry: what a command line asks for is composed, validated as a whole, then run, here or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from quantlab.config.hydra import composed
from quantlab.config.launcher import PREFIX, LauncherConfig, parse_launcher
from quantlab.config.parse import parse_grid
from quantlab.config.schema import RunConfig
from quantlab.grid.run import run_grid
from quantlab.util.console import refuse
from quantlab.util.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the grid that the command line asks for.

    Returns:
        The exit code: 0, 1 if a cell failed, 2 if the configuration is wrong (nothing was run then).
    """
    try:
        given = sys.argv[1:] if arguments is None else arguments
        sweep = read(given)
        if not sweep.configs and asks_to_run(given):
            raise ConfigError(f"the sweep has no cell: a glob or a range of it is empty, in {' '.join(given)}")
        if not sweep.configs:
            return 0
        if sweep.launcher is None:
            return run_grid(sweep.configs)
        from quantlab.grid.slurm.submit import run_on_slurm

        return run_on_slurm(sweep.configs, sweep.launcher)
    except ConfigError as error:
        return refuse(error)


@dataclass(frozen=True)
class Sweep:
    """What a command line asks for, validated."""

    configs: list[RunConfig]  # empty after --help, --cfg and the like
    launcher: LauncherConfig | None  # None: this machine


def read(arguments: Sequence[str]) -> Sweep:
    """The cells that a command line asks for, and where they are to run.

    Raises:
        ConfigError: a name or a value is wrong; the message says which, and what is allowed.
    """
    found = composed(arguments)
    if any(launcher != found.launchers[0] for launcher in found.launchers):
        raise ConfigError(f"{PREFIX}*: one launcher for all cells, it cannot be swept over")
    return Sweep(parse_grid(found.points), parse_launcher(found.launchers[0]) if found.launchers else None)


def compose(arguments: Sequence[str]) -> list[RunConfig]:
    """The cells that a command line asks for, validated; `["quant=hqq_int4"]` is one, `["-m", …]` a grid.

    Raises:
        ConfigError: a name or a value is wrong; the message says which, and what is allowed.
    """
    return parse_grid(composed(arguments).points)


def asks_to_run(arguments: Sequence[str]) -> bool:
    """Whether the command line is none of those that only show something."""
    shows = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")
    return not any(argument.split("=")[0] in shows for argument in arguments)
