"""The table for terminals, printed at the end of a grid and by `quantlab report`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from quantlab.report import hidden, ranking, study
from quantlab.report.against import compared
from quantlab.report.cell_summary import CellSummary
from quantlab.report.columns import Column, columns
from quantlab.report.study import Group
from quantlab.report.wording import (
    ABSENT,
    between,
    compared_elsewhere,
    depends_on_batch,
    enumerated,
    failures,
    little_calibration,
    loops,
    names,
    no_verdict,
    noise,
    problems,
    published,
    ratio,
    scorings,
    sizes,
    stopped,
    tied,
    too_few,
    underpowered,
)
from quantlab.util.console import console as plain_console
from quantlab.util.printable import printable

_GAP = "  "  # between columns
_SHORTEST = 8  # smallest width of a shortened name
_UNLIMITED = 400  # characters per line in a file or pipe, which have no width
_STYLES = {
    **{"ok": "green", "unsupported": "yellow", "failed": "red", "oom": "red", "timeout": "red"},
    **{"better": "green", "tied": "green", "worse": "red", "underpowered": "yellow"},
    **{"baseline": "dim", "reference": "dim"},
    **{"faster": "green", "slower": "red", "not converged": "yellow"},
    **{"reproduced": "green", "not reproduced": "red", "not comparable": "yellow"},
}


def show(rows: Sequence[CellSummary], console: Console | None = None) -> None:
    """Print the table, fitted to the terminal; in a file or pipe it is as wide as needed.

    Below follow failures with their reasons, and notes on the speeds. Rows keep their
    order. The best figure of a column among cells of one checkpoint, corpus and protocol is bold, unless the
    intervals cannot distinguish it from another.
    """
    console = console or plain_console()
    if console.is_terminal:
        _print(rows, console)
    else:
        console.file.write(text(rows))


def text(rows: Sequence[CellSummary], width: int = _UNLIMITED) -> str:
    """The table as plain text, fitted to lines of `width` characters."""
    console = plain_console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        _print(rows, console)
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())


def _print(rows: Sequence[CellSummary], console: Console) -> None:
    made = study.groups(rows)
    filled = [_filled(column, rows, made) for column in columns(rows)]
    chosen = _fitting(filled, console)
    console.print(_table(chosen, _name_widths(chosen, console)), no_wrap=True, overflow="ellipsis")
    if len(chosen) < len(filled):
        console.print(_left_out(filled, chosen), style="dim")
    for what in tied(rows):
        console.print(Text.assemble(("tied: ", _STYLES["tied"]), what))
    for what in underpowered(rows):
        console.print(Text.assemble(("underpowered: ", _STYLES["underpowered"]), what))
    called = names(rows)
    for name, cells in compared(rows, called):
        console.print(_line("compared with", "dim", name, cells))
    for line in (
        *_failures(rows, called), *_too_few_notes(rows), *_problems(rows),
        *_unconverged(rows, called), *_notes(rows, called),
    ):  # fmt: skip
        console.print(line)
    for verdict, label, what in published(rows, called):
        console.print(_line(verdict, _STYLES.get(verdict, ""), label, what))
    for how in scorings(rows).values():
        console.print(f"Scored by {printable(how)}", style="dim")


@dataclass(frozen=True, eq=False)
class _Filled:
    """A column with its texts."""

    column: Column
    cells: list[Text]

    @cached_property
    def width(self) -> int:
        """Width in characters, cached since rich would measure every cell several times."""
        return max(cell_len(text) for text in (*self.title, *(cell.plain for cell in self.cells)))

    @property
    def title(self) -> list[str]:
        """Lines of the title, made printable, as split names come from corpora."""
        return list(map(printable, self.column.title))


def _filled(column: Column, rows: Sequence[CellSummary], made: Sequence[Group]) -> _Filled:
    best = {cell_id for group in made for cell_id in _best(column, group.rows)}
    return _Filled(column, [_cell(column, row, row.cell_id in best) for row in rows])


def _fitting(filled: Sequence[_Filled], console: Console) -> list[_Filled]:
    """The columns that fit; the least needed are dropped first, all of a kind together."""
    chosen = list(filled)
    while not _fits(chosen, console):
        level = max(one.column.drop_first for one in chosen)
        if not level:
            break
        chosen = [one for one in chosen if one.column.drop_first != level]
    while not _fits(chosen, console, _shortest(chosen)) and len(chosen) > 1:
        chosen.remove(max(reversed(chosen), key=_needed_least))  # whole, as half a figure would be wrong
    return chosen


def _needed_least(one: _Filled) -> int:
    """Drop priority if not even short names fit: error rates and verdict go late, names last."""
    if one.column.shrinks:
        return 0
    return 1 if one.column.scored or one.column.title[-1] == "verdict" else 2


Widths = dict[_Filled, int]  # columns narrower than their text


def _shortest(chosen: Sequence[_Filled]) -> Widths:
    return {one: min(one.width, _SHORTEST) for one in chosen if one.column.shrinks}


def _name_widths(chosen: Sequence[_Filled], console: Console) -> Widths:
    """Widths of the name columns; the longest are shortened first."""
    widths = {one: one.width for one in chosen if one.column.shrinks}
    while not _fits(chosen, console, widths) and max(widths.values(), default=0) > _SHORTEST:
        widths[max(widths, key=lambda one: widths[one])] -= 1
    return widths


def _fits(chosen: Sequence[_Filled], console: Console, widths: Widths | None = None) -> bool:
    return _needed(chosen, widths) <= console.width


def _needed(chosen: Sequence[_Filled], widths: Widths | None = None) -> int:
    """Width of the table in characters."""
    return sum((widths or {}).get(one, one.width) for one in chosen) + len(_GAP) * (len(chosen) - 1)


def _left_out(filled: Sequence[_Filled], chosen: Sequence[_Filled]) -> str:
    """Note on dropped columns, with their value if it is the same in every row, and on how to see them."""
    dropped = sorted((one for one in filled if one not in chosen), key=lambda one: -one.column.drop_first)
    listed = ", ".join(dict.fromkeys(" ".join(one.title) + _common_value(one) for one in dropped))
    wide = _needed(filled)
    return (
        f"Left out, the terminal is too narrow: {listed}. All columns: a terminal {wide} wide, or the command | less -S"
    )


def _common_value(one: _Filled) -> str:
    """` (cpu)`: the value of a column if it is the same in every row."""
    found = {cell.plain for cell in one.cells}
    return f" ({found.pop()})" if one.column.words and len(found) == 1 else ""


def _table(chosen: Sequence[_Filled], widths: Widths) -> Text:
    """The lines of the table: titles, a rule, and a line per cell.

    rich's own table measures, wraps and styles every cell as a text of any number of lines, which takes eight times as
    long.

    Args:
        chosen: the columns.
        widths: widths of the shortened columns.
    """
    wide = [widths.get(one, one.width) for one in chosen]
    height = max(len(one.title) for one in chosen)
    titles = [[Text("")] * (height - len(one.title)) + list(map(Text, one.title)) for one in chosen]
    rule = Text("─" * _needed(chosen, widths))
    words = [one.column.words for one in chosen]
    lines = [_aligned(line, wide, words) for line in zip(*titles, strict=True)]
    return Text("\n").join(
        [*lines, rule, *(_aligned(row, wide, words) for row in zip(*(one.cells for one in chosen), strict=True))]
    )


def _aligned(cells: Sequence[Text], wide: Sequence[int], words: Sequence[bool]) -> Text:
    """A line of the table: words to the left, figures to the right, names shortened if they are too wide."""
    line = Text()
    for index, (cell, width, left) in enumerate(zip(cells, wide, words, strict=True)):
        missing = width - cell_len(cell.plain)
        if missing < 0:
            cell = cell.copy()
            cell.truncate(width, overflow="ellipsis")
            missing = width - cell_len(cell.plain)
        line.append(_GAP * (index > 0) + " " * (0 if left else missing)).append_text(cell)
        line.append(" " * (missing if left else 0))
    return line


def _best(column: Column, rows: Sequence[CellSummary]) -> list[str]:
    """The best cell of a column; empty if another is level with it."""
    marks = ranking.marks(rows, column.metric(rows))
    return [] if "level" in marks.values() else list(marks)


def _cell(column: Column, row: CellSummary, best: bool) -> Text:
    found = column.show(row)
    if found is None:
        return Text(ABSENT, style="dim")
    shown = printable(found)
    return Text(shown, style=_STYLES.get(shown, "") if column.words else "bold" if best else "")


def _failures(rows: Sequence[CellSummary], named: Mapping[str, str]) -> Iterator[Text]:
    for some, status, reason in failures(rows):
        yield _line(status, _STYLES[status], enumerated([named[row.cell_id] for row in some]), reason)


def _too_few_notes(rows: Sequence[CellSummary]) -> Iterator[Text]:
    """Notes on corpora with too few utterances to show anything."""
    for corpus, what in too_few(rows):
        yield _line("too few utterances", "yellow", corpus, what)


def _problems(rows: Sequence[CellSummary]) -> Iterator[Text]:
    for which, corpus, found in problems(rows):
        yield _line(which, "yellow", corpus, found)


def _unconverged(rows: Sequence[CellSummary], named: Mapping[str, str]) -> Iterator[Text]:
    """Cells whose timing did not converge within the protocol's budget."""
    for row in rows:
        speed = row.record.speed
        if speed is not None and not speed.converged:
            reach = f"{ratio(speed.ratio)}{between(speed.ci95, ratio)} × base after {speed.blocks} blocks"
            yield _line("not converged", "yellow", named[row.cell_id], reach)


def _notes(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[Text]:
    notes = {
        "stopped early": stopped, "loops": loops, "hidden": hidden.more, "keywords": hidden.keywords,
        "batch": depends_on_batch, "calibration": little_calibration, "size": sizes, "noise": noise,
        "no verdict": no_verdict, "baseline": compared_elsewhere,
    }  # fmt: skip
    for word, found in notes.items():
        for cells, what in found(rows, called):
            yield _line(word, "yellow", cells, what)


def _line(word: str, style: str, label: str, text: str) -> Text:
    return Text.assemble((f"{word}: ", style), (f"{printable(label)}: ", "bold"), printable(text))
