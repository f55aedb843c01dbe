"""`quantlab merge`: the records of several folders, and of bundles, copied into one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from quantlab.bundle.records import opened
from quantlab.records import several
from quantlab.util.command import HELP, PATH, example, perform
from quantlab.util.console import NO, tell, warn
from quantlab.util.counted import counted
from quantlab.util.entry import enter


@click.command("merge", context_settings=HELP, epilog=example("quantlab merge laptop/mlruns board/mlruns --into all"))
@click.argument("roots", nargs=-1, required=True, type=PATH, metavar="DIR...")
@click.option("--into", type=PATH, required=True, metavar="DIR", help="Target folder; records in it are not changed.")
def command(roots: tuple[Path, ...], into: Path) -> int:
    """Copy the records of several folders, or of tar archives, into one.

    A DIR made by quantlab bundle gives the records of what lies in its measured/, completed with texts and counts.

    Records are copied byte for byte, and nothing is overwritten. Identical records of a cell are copied once. If
    records of a cell differ, none is copied and the cell is named.

    Exit code: 0, 1 if records of one cell differ, 2 if a folder has no records, a bundle or its results have changed,
    or an option is wrong.
    """
    if same := [str(root) for root in roots if root.exists() and into.exists() and root.samefile(into)]:
        raise click.UsageError(f"--into {into} is one of the folders to copy, {same[0]}: name another target")
    merged = several.merge(roots, into, opened)
    for clash in merged.clashes:
        warn(f"{clash}: not copied; keep two measurements of one cell in separate folders")
    copied = f"{counted(merged.copied, 'record')} copied into {into}"
    tell(f"{copied}, {merged.there} already there, {len(merged.clashes)} left out")
    return NO if merged.clashes else 0


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
