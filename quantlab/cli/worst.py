"""`quantlab worst`: the utterances that a quantized model gets worse."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from quantlab.records import several
from quantlab.records.asked_for import ids_of
from quantlab.records.root_option import no_records, roots_option
from quantlab.report import worst
from quantlab.report.summaries import summaries
from quantlab.report.wording import names
from quantlab.util.command import HELP, OneOf, at_least_one, example, perform
from quantlab.util.console import NO, to_stdout, warn
from quantlab.util.entry import enter

FORMATS = {"table": worst.to_text, "markdown": worst.to_markdown, "json": worst.to_json}


@click.command("worst", context_settings=HELP, epilog=example("quantlab worst nano-hqq_int3-cpu --most 20"))
@click.argument("ids", nargs=-1, metavar="[CELL]...")
@roots_option()
@click.option("--most", type=at_least_one, metavar="N", help="Utterances of each cell (default: 10; 3 without CELL).")
@click.option("--against", metavar="NAME", help="Compare with cells of this library or quantizer, as report does.")
@click.option("--format", type=OneOf("format", FORMATS), default="table", show_default=True, help="Output format.")
def command(ids: tuple[str, ...], roots: tuple[Path, ...], most: int | None, against: str | None, format: str) -> int:
    """List the utterances with more errors than with the baseline, worst first, and the share of those without.

    Cells are given by id or by label, as quantlab status shows them; without any, all that are compared. Texts are
    normalised as for scoring; [-word-] is missing, {+word+} is not in the reference.

    Exit code: 0, 1 if no cell is compared with another, 2 for an id that has no record or a wrong option.
    """
    with several.below(roots) as root:
        found = summaries(root, against=against)
        if not found:
            warn(no_records(*roots))
            return NO
        wanted = ids_of(root, ids) if ids else [row.cell_id for row in found]
        baselines = [row for row in found if row.cell_id in wanted and row.is_baseline]
        made = list(worst.regressions(found, wanted, most or (10 if ids else 3)))
    if not made:
        name = next((names(found)[row.cell_id] for row in baselines), None) if ids else None
        if name is not None:
            warn(f"{name} is a baseline: name a quantized cell, which is compared with it")
        else:
            warn("no cell with texts is compared with another: measure its baseline too, quant=none")
        return NO
    with to_stdout():
        print(FORMATS[format](made), end="")
    return 0


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
