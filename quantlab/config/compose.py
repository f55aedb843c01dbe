"""Composition and validation of a whole command line: the cells of a grid and their launcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantlab.config.hydra import composed, refuse_repeated
from quantlab.config.launcher import PREFIX, LauncherConfig, parse_launcher
from quantlab.config.parse import parse_grid
from quantlab.config.schema import RunConfig
from quantlab.util.errors import ConfigError
from quantlab.util.memory import without_gc


@dataclass(frozen=True)
class Sweep:
    """The validated cells and launcher of a command line."""

    configs: list[RunConfig]  # empty after --cfg and the like
    launcher: LauncherConfig | None  # None: this machine


@without_gc()
def read(arguments: Sequence[str]) -> Sweep:
    """Compose and validate a command line: its cells and their launcher.

    Raises:
        ConfigError: a name or a value is wrong, or a key is given twice; the message says which, and what is allowed.
    """
    refuse_repeated(arguments)
    found = composed(arguments)
    if any(launcher != found.launchers[0] for launcher in found.launchers):
        raise ConfigError(f"{PREFIX}*: one launcher for all cells, it cannot be swept over")
    configs, launcher = parse_grid(found.points), parse_launcher(found.launchers[0]) if found.launchers else None
    if launcher is not None and (jobs := [config.jobs for config in configs if config.jobs != 1]):
        raise ConfigError(
            f"jobs={jobs[0]}: a SLURM job measures its cells in turn; SLURM runs jobs side by side, at most "
            f"{PREFIX}array_parallelism={launcher.array_parallelism} of them: leave jobs out"
        )
    return Sweep(configs, launcher)


def compose(overrides: Sequence[str]) -> list[RunConfig]:
    """Compose and validate the cells of a grid, as `quantlab -m` does; nothing is measured.

    Args:
        overrides: keys as on the command line: `["quant=none,hqq_int4", "dataset.limit=20"]` is two cells. The last
            value counts of a key that is given twice, so that a list of defaults can precede them.

    Returns:
        One configuration per cell, in the order of the grid: the last key varies fastest.

    Raises:
        ConfigError: a name or a value is wrong; the message says which, and what is allowed.
    """
    return parse_grid(composed(["-m", *overrides]).points)
