"""`quantlab sbatch`: print an sbatch script for a grid, for manual submission."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path

import click

from quantlab.cli.keys import grid_arguments
from quantlab.util.command import HELP, PATH, example, perform
from quantlab.util.console import MISUSED, to_stdout, warn
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError

SHOWS = ("--cfg", "-c", "--info", "-i", "--hydra-help")


@click.command(
    "sbatch",
    context_settings=HELP | {"ignore_unknown_options": True},
    epilog=example("quantlab sbatch -m model=small,base quant=none,bnb_nf4 device=cuda > job.sh && sbatch job.sh"),
)
@click.option("--root", type=PATH, metavar="DIR", help="The grid's output_dir (default: mlruns).")
@grid_arguments
def command(root: Path | None, arguments: tuple[str, ...]) -> int:
    """Print a script for sbatch that measures a grid as an array of jobs.

    The arguments are those of quantlab run; the default is hydra/launcher=slurm (one GPU per job). The configuration
    is composed now and stored in DIR/jobs. Cells that are recorded, or already in a job, are left out.

    Exit code: 0, even if nothing is left to measure (then nothing is printed); 2 if the configuration is wrong.
    """
    overrides = list(arguments)
    if root is not None:
        overrides.append(f"output_dir={root}")
    if not any(override.startswith("hydra/launcher=") for override in overrides):
        overrides.append("hydra/launcher=slurm")
    if wrong := [item for item in overrides if item.split("=")[0] in SHOWS]:
        warn(f"{wrong[0]}: not available in sbatch; use: quantlab {shlex.join(overrides)}")
        return MISUSED
    from quantlab.config.compose import read
    from quantlab.grid.slurm.submit import script

    sweep = read(overrides)
    if sweep.launcher is None:
        raise ConfigError("hydra/launcher=basic: a script is for SLURM; allowed: slurm, slurm_cpu")
    printed = script(sweep.configs, sweep.launcher)
    with to_stdout():
        sys.stdout.write(printed or "")
    return 0


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
