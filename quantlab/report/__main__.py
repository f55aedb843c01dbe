"""`quantlab report`: report on the records below a folder, for people or programs."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import click

from quantlab.records import several
from quantlab.records.root_option import no_records, roots_option
from quantlab.report import flat, latex, markdown, table
from quantlab.report.summaries import Summaries, summaries
from quantlab.util.command import HELP, PATH, OneOf, example, perform, positive
from quantlab.util.console import MISUSED, NO, to_stdout, warn
from quantlab.util.entry import enter
from quantlab.util.memory import without_gc
from quantlab.util.printable import printable

_PAGE = "report.html"  # below the root


def _html(found: Summaries, unread: Sequence[str], audio: tuple[Path, ...] = ()) -> str:
    from quantlab.report.html import page  # imported here, as only this format needs a charting library

    return page(found, audio=audio, unread=unread)


def _table(found: Summaries, unread: Sequence[str]) -> str:
    return table.text(found) + "".join(f"not read: {printable(why)}\n" for why in unread)


# Each format takes the cells and messages about unreadable files; programs find these on standard error only.
FORMATS: dict[str, Callable[[Summaries, Sequence[str]], str]] = {
    "table": _table,
    "markdown": markdown.render,
    "latex": latex.render,
    "csv": lambda found, unread: flat.render(found),
    "json": lambda found, unread: found.to_json() + "\n",
    "html": _html,
}


@dataclass(frozen=True)
class Asked:
    """Options of the command."""

    roots: tuple[Path, ...]
    format: str
    out: Path | None
    audio: tuple[Path, ...]
    margin: float | None
    against: str | None


@click.command(
    "report",
    context_settings=HELP,
    epilog=example("quantlab report --root mlruns --format markdown --out report.md"),
)
@roots_option()
@click.option("--format", type=OneOf("format", FORMATS), default="table", show_default=True, help="Output format.")
@click.option("--out", type=PATH, metavar="FILE", help=f"Write to a file (html: DIR/{_PAGE}, unless stdout is a file).")
@click.option(
    "--audio",
    type=PATH,
    metavar="DIR",
    multiple=True,
    help="html: a folder whose audio the page may play; the manifest has to be in it too; may be given several times "
    "(default: shipped corpora only).",
)
@click.option(
    "--margin",
    type=positive,
    metavar="POINTS",
    help="Non-inferiority margin, percentage points of WER (default: stats.margin of each record).",
)
@click.option(
    "--against",
    metavar="NAME",
    help="Compare accuracy with cells of this library (hqq: at equal bits, groups and modules) or quantizer "
    "(hqq_int3); all else is equal (default: with the unquantized cell).",
)
@without_gc()
def command(
    roots: tuple[Path, ...],
    format: str,
    out: Path | None,
    audio: tuple[Path, ...],
    margin: float | None,
    against: str | None,
) -> int:
    """Print the cells measured so far.

    WER and CER in %, size in MB (10^6 bytes), RTF = generation time / audio time over all splits. In JSON and CSV:
    fractions, bytes, seconds; what does not exist is null or empty.

    Exit code: 0, 1 if there are no records, 2 if the file cannot be written or an option is wrong.
    """
    if audio and format != "html":
        raise click.UsageError("--audio: only the page plays audio, add --format html")
    if missing := [str(folder) for folder in audio if not folder.is_dir()]:
        raise click.UsageError(f"--audio {missing[0]}: no such folder")
    asked = Asked(roots, format, out, audio, margin, against)
    with several.below(asked.roots) as root:
        return _report(asked, root)


def _report(asked: Asked, root: Path) -> int:
    unread: list[str] = []

    def leave_out(why: str) -> None:
        warn(why)
        unread.append(why)

    found = summaries(root, margin=asked.margin, on_unreadable=leave_out, against=asked.against)
    if not found:
        warn(no_records(*asked.roots))
        if asked.format != "json":
            return NO
    code = _deliver(asked, found, unread)
    return code if found else NO


def _deliver(asked: Asked, found: Summaries, unread: Sequence[str]) -> int:
    out, render = asked.out, FORMATS[asked.format]
    if asked.format == "html":
        render = partial(_html, audio=asked.audio)
    if out is None and asked.format == "html" and not _is_file(sys.stdout):
        beside = asked.roots[0].parent if asked.roots[0].is_file() else asked.roots[0]
        out = beside / _PAGE
    if out is not None:
        return _write(out, render(found, unread))
    with to_stdout():
        if asked.format == "table" and sys.stdout.isatty():
            table.show(found)  # unreadable files were already reported on standard error
        else:
            sys.stdout.write(render(found, unread))
    return 0


def _is_file(stream: IO[str]) -> bool:
    """Whether the stream is a regular file (`> page.html`); an HTML page is not printed to a terminal or notebook."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # a stream without a file descriptor
        return False


def _write(path: Path, text: str) -> int:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        warn(f"{path} cannot be written: {error.strerror}")
        return MISUSED
    warn(f"wrote {path}")
    return 0


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
