"""Output of a recommendation as text or JSON."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from quantlab.report.cell_summary import EXACTLY_0, EXACTLY_1
from quantlab.report.recommend.choose import Recommendation
from quantlab.report.recommend.judge import Candidate, Finding, Limits
from quantlab.report.wording import ABSENT, estimate, half_width, megabytes, points, three_digits
from quantlab.util.console import console as plain_console
from quantlab.util.languages import RATES
from quantlab.util.printable import printable

_PLAIN_WIDTH = 100  # characters per line in a file or pipe
_GAP = 3  # characters between columns
_SHORTEST = 8  # smallest width that a name is folded to
_FEW = 12  # lines shown of a list; the rest is counted


def show(found: Recommendation, console: Console | None = None, everything: bool = False) -> None:
    """Print a recommendation: in colour and fitted to the width on a terminal, plain in a file or pipe."""
    console = console or plain_console()
    if console.is_terminal:
        console.print(_render(found, everything, console.width), crop=False)
    else:
        console.file.write(text(found, everything=everything))


def text(found: Recommendation, width: int = _PLAIN_WIDTH, everything: bool = False) -> str:
    """A recommendation as plain text, in lines of `width` characters."""
    console = plain_console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(_render(found, everything, width), crop=False)
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())


def to_json(found: Recommendation) -> str:
    """A recommendation as one JSON object, with the units of the report; missing figures are null."""
    return json.dumps(_plain(found), indent=1, allow_nan=False)


def _plain(value: object) -> object:
    """A value for JSON; infinity becomes null (a failed cell is infinitely far from qualifying)."""
    if isinstance(value, Candidate):
        return value.to_dict()
    if isinstance(value, Recommendation | Finding | Limits):
        return {name: _plain(part) for name, part in vars(value).items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def _render(found: Recommendation, everything: bool, width: int) -> Group:
    return Group(*_parts(found, None if everything else _FEW, width))


def _parts(found: Recommendation, few: int | None, width: int) -> Iterator[RenderableType]:
    if found.best is None:
        yield _text(found.because[0].upper() + found.because[1:], style="bold red")
    else:
        yield _text(found.best.name, style="bold green")
        yield Padding(Group(_text(found.because), Text(_figures(found.best))), (0, 0, 0, 2))
    if found.qualifying:
        yield _heading("Qualify", found.qualifying)
        yield from (Padding(part, (0, 0, 0, 2)) for part in _table(found.qualifying[:few], found.best, width - 2))
        yield from _rest(found.qualifying, few)
    yield from _list("Underpowered: the data cannot say yet", found.underpowered, few, "yellow")
    yield from _list("Undecided", found.undecided, few, "yellow")
    yield from _list("Fall out", found.rejected, few, "red")
    yield from (Group("", _text(note, style="dim")) for note in found.notes)


def _text(text: str, style: str = "") -> Text:
    """Text from a record, made printable."""
    return Text(printable(text), style=style)


def _figures(cell: Candidate) -> str:
    parts = []
    if cell.wer_increase not in (None, EXACTLY_0):
        parts.append(f"{RATES[cell.error_unit]} {estimate(cell.wer_increase, points, ' points')} against its baseline")
    if cell.rtf is not None:
        parts.append(f"RTF {three_digits(cell.rtf.value)}")
    if _was_timed(cell):
        parts.append(f"{_ratio(cell)} of the time of its baseline")
        parts += ["not converged"] if cell.speed_converged is False else []
    if cell.size_bytes is not None:
        parts.append(f"{megabytes(cell.size_bytes)} MB")
    return ", ".join(parts)


def _was_timed(cell: Candidate) -> bool:
    """Whether the cell's ratio was measured; the baseline's is 1 by definition."""
    return cell.speed not in (None, EXACTLY_1)


def _ratio(cell: Candidate) -> str:
    if cell.speed is None or cell.speed.ci95 is None:
        return ABSENT
    return half_width(cell.speed.value, cell.speed.ci95) if _was_timed(cell) else "1"


def _heading(title: str, items: Sequence[object]) -> Text:
    return Text.assemble("\n", (title, "bold"), f" ({len(items)})")


def _table(cells: Sequence[Candidate], best: Candidate | None, width: int) -> Iterator[RenderableType]:
    """Table with as many columns of figures as fit; names are folded."""
    timed = any(map(_was_timed, cells))
    rate = RATES[cells[0].error_unit] if cells else RATES["word"]
    titles = ["cell", f"{rate} points", "RTF", *(["time ×base"] if timed else []), "MB"]
    lines = [list(_fields(cell, timed)) for cell in cells]
    needed = [max(map(cell_len, column)) + _GAP for column in zip(titles, *lines, strict=True)]
    count = next(n for n in range(len(titles), 0, -1) if n == 1 or _SHORTEST + sum(needed[1:n]) <= width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column("cell", overflow="fold")
    for title in titles[1:count]:
        table.add_column(title, justify="right", no_wrap=True)
    for cell, line in zip(cells, lines, strict=True):
        table.add_row(*line[:count], style="bold" if cell is best else "")
    yield table
    if left_out := titles[count:]:
        note = f"Left out, the terminal is too narrow: {', '.join(left_out)}"
        yield Text(f"{note}. All columns: a wider terminal, or --format json", style="dim")


def _fields(cell: Candidate, timed: bool) -> Iterator[str]:
    change = cell.wer_increase
    yield printable(cell.name)
    yield "0" if change is None or change == EXACTLY_0 else estimate(change, points)
    yield ABSENT if cell.rtf is None else three_digits(cell.rtf.value)
    if timed:
        yield _ratio(cell) + (" ?" if cell.speed_converged is False and _was_timed(cell) else "")
    yield ABSENT if cell.size_bytes is None else megabytes(cell.size_bytes)


def _list(title: str, findings: Sequence[Finding], few: int | None, style: str) -> Iterator[RenderableType]:
    if not findings:
        return
    yield _heading(title, findings)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style=style, overflow="fold")
    table.add_column(overflow="fold")
    for finding in findings[:few]:
        lines = [*finding.reasons, *([finding.advice] if finding.advice else [])]
        table.add_row(_text(finding.cell.name), Text("\n".join(map(printable, lines))))
    yield Padding(table, (0, 0, 0, 2))
    yield from _rest(findings, few)
    for command in dict.fromkeys(finding.command for finding in findings[:few] if finding.command):
        shown = f"    {printable(command)}"
        yield Text(shown, style="cyan", no_wrap=True, overflow="ignore")  # never folded, so that it can be copied


def _rest(items: Sequence[object], few: int | None) -> Iterator[Text]:
    if few is not None and len(items) > few:
        yield Text(f"  … and {len(items) - few} more (--all lists them)", style="dim")
