"""`python -m quantlab.report`: the records below a folder, as a table or for a program."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from quantlab.config import did_you_mean
from quantlab.report import rows, table

NOTHING = 1  # exit code: there are no records


def _print_json(found: list[rows.Row]) -> None:
    print(rows.to_json(found))


FORMATS: dict[str, Callable[[list[rows.Row]], None]] = {"table": table.show, "json": _print_json}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report.

    Returns:
        The exit code: 0, or 1 if there are no records. A misuse leaves through `SystemExit(2)`.
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "–" gets a "?", not a traceback
    found = rows.rows(options.root)
    if not found:
        rows.warn(f"no records below {options.root}; make some: python -m quantlab -m quant=none,torch_int8")
    if found or options.format == "json":
        _print(FORMATS[options.format], found)
    return 0 if found else NOTHING


def _print(show: Callable[[list[rows.Row]], None], found: list[rows.Row]) -> None:
    try:
        show(found)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone; without this the interpreter complains when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantlab.report",
        description="Print the cells measured so far. WER and CER in %, size in MB (10^6 bytes), RTF = generation "
        "time / audio time over all splits. In JSON: fractions, bytes, seconds; what does not exist is null.",
        epilog="example: python -m quantlab.report --root mlruns --format json",
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("mlruns"),
        metavar="DIR",
        help="the grid's output_dir (default: %(default)s)",
    )
    parser.add_argument(
        "--format", type=_format, default="table", metavar="|".join(FORMATS), help="default: %(default)s"
    )
    return parser


def _format(name: str) -> str:
    if name not in FORMATS:
        raise argparse.ArgumentTypeError(f"no format {name!r}{did_you_mean(name, list(FORMATS))}")
    return name


if __name__ == "__main__":
    sys.exit(main())
