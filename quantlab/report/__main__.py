"""`python -m quantlab.report`: the records below a folder, for a person or for a program."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from quantlab.records.root_option import PACKED, add_root, no_records, records_below
from quantlab.report import flat, latex, markdown, table
from quantlab.report.summaries import Summaries, summaries
from quantlab.util.console import MISUSED, NO, Parser, one_of, positive, to_stdout, warn
from quantlab.util.entry import enter
from quantlab.util.printable import printable

_PAGE = "report.html"  # below the root


def _html(found: Summaries, unread: Sequence[str], audio: tuple[Path, ...] = ()) -> str:
    from quantlab.report.html import page  # a charting library, which no other format needs

    return page(found, audio=audio, unread=unread)


def _table(found: Summaries, unread: Sequence[str]) -> str:
    return table.text(found) + "".join(f"not read: {printable(why)}\n" for why in unread)


# Cells, and lines about what could not be read, which programs find on standard error alone.
FORMATS: dict[str, Callable[[Summaries, Sequence[str]], str]] = {
    "table": _table,
    "markdown": markdown.render,
    "latex": latex.render,
    "csv": lambda found, unread: flat.render(found),
    "json": lambda found, unread: found.to_json() + "\n",
    "html": _html,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report, or write it to a file.

    Returns:
        The exit code: 0, 1 if there are no records, 2 if the file cannot be written. A misuse of an option leaves
        through `SystemExit(2)`.
    """
    options = _parser().parse_args(arguments)
    with records_below(options.root) as root:
        return _report(options, root)


def _report(options: argparse.Namespace, root: Path) -> int:
    unread: list[str] = []

    def leave_out(why: str) -> None:
        warn(why)
        unread.append(why)

    found = summaries(root, margin=options.margin, on_unreadable=leave_out)
    if not found:
        warn(no_records(options.root))
        if options.format != "json":
            return NO
    code = _deliver(options, found, unread)
    return code if found else NO


def _deliver(options: argparse.Namespace, found: Summaries, unread: Sequence[str]) -> int:
    out, render = options.out, FORMATS[options.format]
    if options.format == "html":
        render = partial(_html, audio=tuple(options.audio))
    if out is None and options.format == "html" and sys.stdout.isatty():
        beside = options.root.parent if options.root.is_file() else options.root
        out = beside / _PAGE  # nobody reads a page of megabytes in a terminal
    if out is not None:
        return _write(out, render(found, unread))
    with to_stdout():
        if options.format == "table" and sys.stdout.isatty():
            table.show(found)  # what could not be read stands above it already
        else:
            sys.stdout.write(render(found, unread))
    return 0


def _write(path: Path, text: str) -> int:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        warn(f"{path} cannot be written: {error.strerror}")
        return MISUSED
    warn(f"wrote {path}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m quantlab.report",
        description="Print the cells measured so far. WER and CER in %, size in MB (10^6 bytes), RTF = generation "
        "time / audio time over all splits. In JSON and CSV: fractions, bytes, seconds; what does not exist is null "
        "or empty.",
        epilog="example: python -m quantlab.report --root mlruns --format markdown --out report.md",
    )
    add_root(parser, PACKED)
    parser.add_argument(
        "--format",
        type=one_of("format", FORMATS),
        default="table",
        metavar="|".join(FORMATS),
        help="default: %(default)s",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"write to a file (html in a terminal: DIR/{_PAGE})")
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="DIR",
        action="append",
        default=[],
        help="html: play the audio of records that lies in this folder, as its manifest must; may be given several "
        "times (default: of shipped corpora alone)",
    )
    parser.add_argument(
        "--margin",
        type=positive,
        metavar="POINTS",
        help="percentage points of WER that do not matter (default: stats.margin of each record)",
    )
    return parser


if __name__ == "__main__":
    gc.disable()  # a short life that only builds: looking for garbage takes a fifth of it over many records
    enter(main)
