"""`quantlab forget`: remove cells from a folder of records, so that they appear in no report."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

import click

from quantlab.grid.forget import forget
from quantlab.grid.status.collect import Line, collect
from quantlab.records.asked_for import id_of
from quantlab.records.root_option import no_records, root_option
from quantlab.util.command import HELP, example, perform
from quantlab.util.console import NO, tell, warn
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError

FAILED = ("failed", "timeout", "oom", "lost")  # states that --failed means
WAITING = ("running", "pending", "not submitted")  # states of cells that are still to be recorded


@click.command("forget", context_settings=HELP, epilog=example("quantlab forget --root mlruns --failed"))
@click.argument("cells", nargs=-1, metavar="[CELL]...")
@click.option("--failed", is_flag=True, help=f"All cells that are {', '.join(FAILED[:-1])} or {FAILED[-1]}.")
@root_option()
def command(cells: tuple[str, ...], failed: bool, root: Path) -> int:
    """Remove the records of cells, without asking, and print which.

    A failed cell stays in every report until a run of the same command succeeds. Cells are given by id or by label, as
    quantlab status shows them; an ok one by its id only. Their runs in a local MLflow are removed by quantlab sync.

    Exit code: 0; 1 if there are no records, or if a cell is kept as it is running or waits for its job; 2 for an
    unknown cell or a wrong option: then nothing is removed.
    """
    if not cells and not failed:
        raise click.UsageError("nothing to forget: give cells, or --failed")
    lines = {line.cell_id: line for line in collect(root)}
    if not lines:
        warn(no_records(root))
        return NO
    named = [_named(root, cell, lines.values()) for cell in cells]
    chosen = [line for line in lines.values() if line in named or (failed and line.state in FAILED)]
    if not chosen:
        warn(f"no failed cell in {root}")
    kept = [line for line in chosen if not _forget(root, line)]
    return NO if kept else 0


def _named(root: Path, asked: str, lines: Collection[Line]) -> Line:
    """The cell that a user named.

    Raises:
        ConfigError: there is none, or several; or it is ok and not named by its id.
    """
    by_id = {line.cell_id: line for line in lines}
    found = by_id[id_of(root, asked, list(by_id), {line.cell_id: line.label for line in lines})]
    if found.state == "ok" and not found.cell_id.startswith(asked):
        raise ConfigError(f"{asked} is ok: to forget it, give its id, {found.cell_id}")
    return found


def _forget(root: Path, line: Line) -> bool:
    if line.state in WAITING or not forget(root, line.cell_id):
        warn(f"{line.label} is {line.state}: not forgotten; stop its grid or job first")
        return False
    tell(f"forgot {line.label}  {line.cell_id}  ({line.state})")
    return True


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
