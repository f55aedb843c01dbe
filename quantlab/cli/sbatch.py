"""`python -m quantlab.sbatch`: a grid as a script for sbatch, for people who submit by hand."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from quantlab.util.console import MISUSED, refuse, to_stdout, warn
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError

EXAMPLE = "python -m quantlab.sbatch -m model=small,base quant=none,bnb_nf4 device=cuda > job.sh && sbatch job.sh"
SHOWS = ("--cfg", "-c", "--info", "-i", "--hydra-help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the cells as they are composed now, and print the script that measures them.

    Returns:
        The exit code: 0, also where nothing is left to measure (nothing is printed then); 2 if the configuration is
        wrong.
    """
    options, overrides = _parser().parse_known_args(arguments)
    if options.root is not None:
        overrides.append(f"output_dir={options.root}")
    if not any(override.startswith("hydra/launcher=") for override in overrides):
        overrides.append("hydra/launcher=slurm")
    if wrong := [item for item in overrides if item.split("=")[0] in SHOWS]:
        warn(f"{wrong[0]}: ask the grid: python -m quantlab {shlex.join(overrides)}")
        return MISUSED
    from quantlab.cli.run import read
    from quantlab.grid.slurm.submit import script

    try:
        sweep = read(overrides)
        if sweep.launcher is None:
            raise ConfigError("hydra/launcher=basic: a script is for SLURM; allowed: slurm, slurm_cpu")
        printed = script(sweep.configs, sweep.launcher)
    except ConfigError as error:
        return refuse(error)
    with to_stdout():
        sys.stdout.write(printed or "")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantlab.sbatch",
        usage="%(prog)s [--root DIR] [-m] KEY=VALUE …",
        description="Print a script for sbatch that measures a grid as an array of jobs. The arguments are those "
        "of python -m quantlab; hydra/launcher=slurm (one GPU a job) is taken unless slurm_cpu is asked for. What "
        "the jobs will run is kept below DIR/jobs as it is composed now. Cells that are recorded, or in a job already, "
        "are left out.",
        epilog=f"example: {EXAMPLE}",
        allow_abbrev=False,
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="the grid's output_dir (default: mlruns)")
    return parser


if __name__ == "__main__":
    enter(main)
