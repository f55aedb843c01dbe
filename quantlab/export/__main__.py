"""`quantlab export`: export the models of measured cells without measuring them again."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import click

from quantlab.export import manifest as manifests
from quantlab.export.place import folders, make
from quantlab.export.readme import sizes
from quantlab.records import storage
from quantlab.records.asked_for import ids_of
from quantlab.records.root_option import no_records, root_option
from quantlab.records.schema import Exported, Record
from quantlab.util.command import HELP, PATH, example, perform
from quantlab.util.console import NO, libraries_silent, tell, warn
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError, ExportError, Unavailable


@click.command(
    "export", context_settings=HELP, epilog=example("quantlab export --root mlruns --dir exported nano-hqq_int4-cpu")
)
@root_option()
@click.option(
    "--dir",
    "directory",
    type=PATH,
    required=True,
    help="Folder to write to: a subfolder for each cell, <label>-<cell id>.",
)
@click.argument("cells", nargs=-1, metavar="[CELL]...")
def command(root: Path, directory: Path, cells: tuple[str, ...]) -> int:
    """Write the quantized models of measured cells to folders from which they can be loaded.

    Cells are given by id or by label, as quantlab status shows them; without any, all with status ok are exported. Each
    model is rebuilt from its record and has to give the recorded texts; nothing is measured. A grid exports its models
    itself with export.dir=DIR.

    Exit code: 0 if all are exported, 1 if one is not or there are no records, 2 for a cell without a record or a wrong
    option.
    """
    ids = storage.recorded(root)
    if not ids:
        warn(no_records(root))
        return NO
    records = storage.readable(root, ids_of(root, cells) or ids, warn)
    make(directory.expanduser(), "--dir ")
    return 0 if _export_all(root, records, str(directory), asked_for=bool(cells)) else NO


def _export_all(root: Path, records: Iterable[Record], directory: str, asked_for: bool) -> bool:
    """Whether every export exists; a failed cell has no model, which is an error only if it was asked for."""
    good = True
    for record in records:
        if record.status != "ok":
            good = good and not asked_for
            warn(f"cell {record.cell_id} has status {record.status}, so it has no model")
        elif found := folders(directory, record.cell_id):
            good = _all_intact(found, record.cell_id) and good
        else:
            good = _export(root, record, directory) and good
    return good


def _all_intact(found: Iterable[Path], cell_id: str) -> bool:
    """Say that a cell is exported already, or how its folder differs from what was written."""
    try:
        for folder in found:
            tell(f"{cell_id} is exported already: {folder}  ({sizes(folder, manifests.check(folder, cell_id))})")
    except (ExportError, OSError) as error:
        warn(f"{error}; delete this folder or move it away, then the same command writes it again")
        return False
    return True


def _export(root: Path, record: Record, directory: str) -> bool:
    """Export one model and print the outcome; True on success."""
    try:
        with libraries_silent():
            from quantlab.export.from_record import export_from_record  # imports torch

            done = export_from_record(root, record, directory)
    except (ExportError, ConfigError, Unavailable) as error:
        done = Exported(folder=directory, problem=str(error))
    if done.problem:
        warn(f"cell {record.cell_id} is not exported: {done.problem}")
        return False
    tell(f"{done.folder}  ({sizes(Path(done.folder), manifests.read(Path(done.folder)))})")
    return True


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
