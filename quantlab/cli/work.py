"""`quantlab work`: run one task of a batch on a node; called by the script of `quantlab sbatch`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from quantlab.records.root_option import root_option
from quantlab.util.command import HELP, example, perform
from quantlab.util.console import refuse
from quantlab.util.entry import enter


@click.command(
    "work",
    context_settings=HELP,
    epilog=example("quantlab work --root mlruns --batch 20260131-120000-1a2b3c --task 0"),
)
@root_option()
@click.option("--batch", required=True, metavar="ID", help="A folder of DIR/jobs.")
@click.option("--task", required=True, type=int, metavar="N", help="Its index in the array, from 0.")
def command(root: Path, batch: str, task: int) -> int:
    """Measure the cells of one task of a batch that have no record of this batch yet.

    Exit code: 0 if its cells are recorded, whatever their status; 2 if there is no such task.
    """
    from quantlab.grid.slurm.job import run_task

    try:
        run_task(str(root), batch, task)
    except ValueError as error:
        return refuse(error)
    return 0


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
