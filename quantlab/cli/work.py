"""`python -m quantlab.work`: one task of a batch, as the script that `quantlab.sbatch` prints runs it on a node."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.records.root_option import add_root
from quantlab.util.console import MISUSED, Parser, refuse
from quantlab.util.entry import enter


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what a task has no record of yet.

    Returns:
        The exit code: 0 when its cells are recorded, whatever became of them; 2 if there is no such task.
    """
    options = _parser().parse_args(arguments)
    from quantlab.grid.slurm.job import run_task

    try:
        run_task(str(options.root), options.batch, options.task)
    except ValueError as error:
        refuse(error)
        return MISUSED
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m quantlab.work",
        description="Measure the cells of one task of a batch: those that have no record of that batch yet.",
        epilog="example: python -m quantlab.work --root mlruns --batch 20260131-120000-1a2b3c --task 0",
    )
    add_root(parser)
    parser.add_argument("--batch", required=True, metavar="ID", help="a folder of DIR/jobs")
    parser.add_argument("--task", required=True, type=int, metavar="N", help="its index in the array, from 0")
    return parser


if __name__ == "__main__":
    enter(main)
