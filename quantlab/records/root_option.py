"""`--root`: the folder of records that a command reads, or the file that they are packed in."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from quantlab.util.console import refuse

PACKED = ", or records packed by tar"  # of what `--root` may be


@contextlib.contextmanager
def records_below(root: Path) -> Iterator[Path]:
    """The folder of records for the length of a block; a file that holds none is a misuse, in one line."""
    from quantlab.records.archive import ArchiveError, unpacked

    try:
        with unpacked(root) as folder:
            yield folder
    except ArchiveError as error:
        sys.exit(refuse(error))


def add_root(parser: argparse.ArgumentParser, more: str = "") -> None:
    """`--root DIR`, which every command takes."""
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("mlruns"),
        metavar="DIR",
        help=f"the grid's output_dir (default: %(default)s){more}",
    )


def no_records(root: str | Path) -> str:
    """What to say, and to do, where nothing has been measured."""
    missing = "" if Path(root).is_dir() else ", which is no folder"
    return f"no records below {root}{missing}; make some: python -m quantlab -m quant=none,torch_int8"
