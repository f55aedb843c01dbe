"""The table of a terminal: at the end of a grid, and from `python -m quantlab.report`."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from quantlab.report.rows import Row

ABSENT = "–"
_MB = 1_000_000  # bytes
_UNLIMITED = 400  # columns; a file or a pipe has no width
_STYLES = {"ok": "green", "unsupported": "yellow", "failed": "red", "oom": "red", "timeout": "red"}
_AXES = ("model", "quant", "device")
# What may tell apart cells that agree in those; a column only where it does.
_FURTHER_AXES = (
    "dataset",
    "weights",
    "runtime",
    "protocol",
    "batch_size",
    "threads",
    "target",
    "group_size",
    "seed",
)


@dataclass(frozen=True)
class Column:
    """One column: how to find its figure (or word), how to print it, and which figure is the better one."""

    title: tuple[str, ...]  # lines
    figure: Callable[[Row], Any]
    show: Callable[[Any], str] = str
    better: Callable[[Sequence[float]], float] | None = None  # None for a column of words
    drop_first: int = 0  # where the terminal is narrow; 0 = never
    shrinks: bool = False  # a name may be cut where even that is not enough, a figure never


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns these rows fill, in reading order."""
    splits = list(dict.fromkeys(split for row in rows for split in row["splits"]))
    return [
        *(Column((axis,), _value(axis), drop_first=_droppable(axis, rows), shrinks=True) for axis in _AXES),
        *(Column(tuple(axis.split("_")), _value(axis)) for axis in _FURTHER_AXES if _tells_apart(axis, rows)),
        *(Column(("WER %", split), _of(split, "wer"), _percent, min) for split in splits),
        *(Column(("CER %", split), _of(split, "cer"), _percent, min, drop_first=3) for split in splits),
        Column(("RTF",), rtf, _three_digits, min),
        Column(("size", "MB"), _value("size_bytes"), _megabytes, min),
        Column(("smaller", "by %"), _value("size_reduction"), _percent_short, max, drop_first=1),
        Column(("status",), _value("status")),
    ]


def _droppable(axis: str, rows: Sequence[Row]) -> int:
    """The quantizer always stays; the model and the device may go if they are the same in every row."""
    return 0 if axis == "quant" or len({row[axis] for row in rows}) > 1 else 2


def _tells_apart(axis: str, rows: Sequence[Row]) -> bool:
    seen: dict[tuple[str, ...], object] = {}
    return any(seen.setdefault(tuple(str(row[n]) for n in _AXES), row[axis]) != row[axis] for row in rows)


def _value(key: str) -> Callable[[Row], Any]:
    return lambda row: row[key]


def _of(split: str, key: str) -> Callable[[Row], Any]:
    return lambda row: row["splits"].get(split, {}).get(key)


def rtf(row: Row) -> float | None:
    """Real-time factor over all splits: total timed generation time / total audio duration."""
    audio_s = sum(split["audio_s"] for split in row["splits"].values())
    generate_s = sum(split["generate_s"] for split in row["splits"].values())
    return generate_s / audio_s if audio_s else None


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _percent_short(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / _MB:.1f}"


def _three_digits(value: float) -> str:
    return f"{value:#.3g}" if value >= 1e-4 else f"{value:.2e}"


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print the table, fitted to the terminal; in a file or a pipe it is as wide as it needs to be.

    What did not end well follows below with its reason. Rows keep their order; the best of a column is bold.
    """
    console = console or Console()
    if console.is_terminal:
        _print(rows, console)
    else:
        console.file.write(text(rows))


def text(rows: Sequence[Row], width: int = _UNLIMITED) -> str:
    """The same as plain text without colours, fitted to lines of `width` characters."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    with console.capture() as captured:
        _print(rows, console)
    return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())


def _print(rows: Sequence[Row], console: Console) -> None:
    chosen, dropped = _fitting(rows, console)
    console.print(_table(rows, chosen))
    if dropped:
        titles = dict.fromkeys(" ".join(column.title) for column in dropped)
        console.print(f"Left out, the terminal is too narrow: {', '.join(titles)}", style="dim", highlight=False)
    for row in rows:
        if row["status"] != "ok":
            console.print(_why(row))


def _fitting(rows: Sequence[Row], console: Console) -> tuple[list[Column], list[Column]]:
    """The columns that fit, and those that had to go: the least needed first, all of a kind together."""
    chosen, dropped = columns(rows), []
    while _width(_table(rows, chosen), console) > console.width:
        level = max(column.drop_first for column in chosen)
        if not level:
            break
        dropped += [column for column in chosen if column.drop_first == level]
        chosen = [column for column in chosen if column.drop_first != level]
    return chosen, dropped


def _width(table: Table, console: Console) -> int:
    wide = console.options.update(max_width=_UNLIMITED)
    return Measurement.get(console, wide, table).maximum


def _table(rows: Sequence[Row], chosen: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="")
    cells = []
    for column in chosen:
        best = _best(column, rows)
        cells.append([_cell(column, row, best) for row in rows])
        table.add_column(
            "\n".join(column.title),
            justify="left" if column.better is None else "right",
            no_wrap=True,
            min_width=None if column.shrinks else max([*map(len, column.title), *map(len, cells[-1])]),
        )
    for line in zip(*cells, strict=True):
        table.add_row(*line)
    return table


def _best(column: Column, rows: Sequence[Row]) -> str | None:
    """How the best figure of a column is printed; None where there is nothing to compare."""
    figures = [figure for row in rows if row["status"] == "ok" and (figure := column.figure(row)) is not None]
    if column.better is None or len(figures) < 2:
        return None
    return column.show(column.better(figures))


def _cell(column: Column, row: Row, best: str | None) -> Text:
    figure = column.figure(row)
    if figure is None:
        return Text(ABSENT, style="dim")
    shown = column.show(figure)
    if column.title == ("status",):
        return Text(shown, style=_STYLES[shown])
    return Text(shown, style="bold" if row["status"] == "ok" and shown == best else "")


def _why(row: Row) -> Text:
    label = f"{row['model']}-{row['quant']}-{row['device']}"
    return Text.assemble((f"{row['status']}: ", _STYLES[row["status"]]), (f"{label}: ", "bold"), row["reason"] or "")
