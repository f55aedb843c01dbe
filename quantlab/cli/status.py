"""`quantlab status`: the state of every cell below a folder, from any node, at any time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click

from quantlab.grid.status.collect import SETTLED, Line, collect, counts
from quantlab.records.root_option import no_records, root_option
from quantlab.util.command import HELP, OneOf, example, perform
from quantlab.util.console import NO, to_stdout, warn
from quantlab.util.counted import counted
from quantlab.util.entry import enter
from quantlab.util.memory import without_gc
from quantlab.util.printable import printable

FORMATS = ("table", "json")
WIDEST = 60  # characters of a reason in the table; JSON and the log have the whole
SHOWN = {  # field → title
    **{"state": "state", "label": "cell", "cell_id": "id", "job": "job", "host": "host", "since": "since"},
    **{"detail": "", "log": "log"},
}
AGAIN = "lost: started, but neither recorded nor running any more; run the same command again, it measures the rest"


@click.command("status", context_settings=HELP, epilog=example("quantlab status --root mlruns"))
@root_option()
@click.option("--format", type=OneOf("format", FORMATS), default="table", show_default=True, help="Output format.")
@without_gc()
def command(root: Path, format: str) -> int:
    """Show the state of every cell.

    Recorded (ok, unsupported, failed, timeout, oom), running, pending in a SLURM queue, not submitted yet, or lost: it
    was started, and its process or job ended without a record. Reads the folder, and asks squeue if available.

    Exit code: 0 if every cell is settled (ok or unsupported); 1 if one failed, is lost or not done yet, or if there is
    none; 2 for a wrong option.
    """
    lines = collect(root)
    if not lines:
        warn(no_records(root))
    with to_stdout():
        if format == "json":
            print(json.dumps({"counts": counts(lines), "cells": [asdict(line) for line in lines]}, indent=1))
        elif lines:
            print(_table(lines))
    return 0 if lines and all(line.state in SETTLED for line in lines) else NO


def _table(lines: Sequence[Line]) -> str:
    totals = ", ".join(f"{count:,} {state}" for state, count in counts(lines).items())
    head = f"{counted(len(lines), 'cell')}: {totals}"
    names = [name for name in SHOWN if any(_shown(line, name) for line in lines)]
    rows = [[SHOWN[name] for name in names], *([_shown(line, name) for name in names] for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    text = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    again = ["", AGAIN] if any(line.state == "lost" for line in lines) else []
    return "\n".join([head, "", text[0], "─" * max(map(len, text)), *text[1:], *again])


def _shown(line: Line, name: str) -> str:
    """A cell of the table; the log is shown only for running, lost and failed cells."""
    if name == "log" and line.state in SETTLED:
        return ""
    text = printable(str(getattr(line, name) or ""))
    return f"{text[: WIDEST - 1]}…" if name == "detail" and len(text) > WIDEST else text


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
