"""`quantlab baseline`: pack measured cells into a small file that a team commits, for `quantlab gate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from quantlab.records import bundle, several, storage
from quantlab.records.asked_for import ids_of
from quantlab.records.root_option import no_records, roots_option
from quantlab.util.command import HELP, PATH, example, perform
from quantlab.util.console import MISUSED, NO, tell, warn
from quantlab.util.counted import counted
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError
from quantlab.util.memory import without_gc


@click.command(
    "baseline", context_settings=HELP, epilog=example("quantlab baseline nano-hqq_int4-cpu --out baseline.json.gz")
)
@click.argument("cells", nargs=-1, metavar="[CELL]...")
@roots_option()
@click.option(
    "--out", type=PATH, default=Path("baseline.json.gz"), show_default=True, metavar="FILE", help="File to write."
)
@without_gc()
def command(cells: tuple[str, ...], roots: tuple[Path, ...], out: Path) -> int:
    """Pack measured cells into a small file to compare later measurements with (quantlab gate).

    CELL is an id, 8 or more of its characters, or a label of the report; without one, all measured cells are packed.
    The file has settings, figures, versions, the machine, counts of every utterance and hashes of its texts.

    Exit code: 0, 1 if no cell can be packed, 2 if a CELL cannot be, the file cannot be written or an option is wrong.
    """
    with several.below(roots) as root:
        if not storage.recorded(root):
            warn(no_records(*roots))
            return NO
        found = packed(root, cells)
    if not found:
        warn("no cell was packed: a baseline needs a measured cell with text")
        return NO
    try:
        size = bundle.write(out, found)
    except OSError as error:
        warn(f"{out} cannot be written: {error.strerror}")
        return MISUSED
    tell(f"{counted(len(found), 'cell')} packed in {out}, {size / 1e6:.2f} MB: quantlab gate --baseline {out}")
    return 0


def packed(root: Path, cells: tuple[str, ...] = ()) -> list[bundle.Packed]:
    """Pack the named cells of a root, or all that can be packed; the others are named in a warning.

    Raises:
        ConfigError: a named cell is not there, or cannot be packed.
    """
    found = []
    for record in storage.readable(root, ids_of(root, cells) or storage.recorded(root), on_unreadable=warn):
        try:
            found.append(bundle.pack(root, record))
        except (ValueError, OSError) as error:
            why = f"cell {record.cell_id} cannot be in a baseline: {str(error).splitlines()[0]}"
            if cells:
                raise ConfigError(why) from None
            warn(why)
    return found


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
