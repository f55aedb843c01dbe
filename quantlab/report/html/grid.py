"""The table of all cells: complete without a script, which then makes it sortable and filters it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from quantlab.report import ranking
from quantlab.report.cell_summary import CellSummary, Rate
from quantlab.report.html.markup import Html, join, tag
from quantlab.report.html.summary import Group, groups, labels
from quantlab.report.parts import Mark
from quantlab.report.ranking import Figure, Metric
from quantlab.report.wording import (
    ABSENT,
    MB,
    apart,
    megabytes,
    percent,
    points,
    rate_name,
    ratio,
    reference,
    three_digits,
)  # fmt: skip
from quantlab.stats.estimate import Estimate

VERDICTS = {  # word → sign before it, so that it does not rest on colour alone, and its rank when sorted
    "better": ("▲", 0),
    "baseline": ("◆", 1),
    "tied": ("=", 2),
    "underpowered": ("?", 3),
    "worse": ("▼", 4),
}


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    title: str
    unit: str
    sort: Callable[[CellSummary], float | str | None]  # what it is sorted by; None comes last
    show: Callable[[CellSummary], object]
    metric: Callable[[Sequence[CellSummary]], Metric | None] = lambda rows: None  # what is best in it
    words: bool = False


def table(rows: Sequence[CellSummary]) -> Html:
    """All cells in the order of the rows."""
    made = groups(rows)
    columns = [
        column for column in (*_of_group(made), *_columns(rows)) if any(column.sort(row) is not None for row in rows)
    ]
    marks = [_marks(column, made) for column in columns]
    number = {row.cell_id: index for index, group in enumerate(made) for row in group.rows}
    named = labels(rows)
    head = tag("tr", _head("cell", "", words=True), (_head(c.title, c.unit, c.words) for c in columns))
    body = (_line(row, named[row.cell_id], number[row.cell_id], columns, marks) for row in rows)
    return tag("table", tag("thead", head), tag("tbody", body), id="cells", aria_describedby="cells-note")


def _head(title: str, unit: str, words: bool) -> Html:
    named = join(title, " ", tag("small", unit)) if unit else title
    return tag("th", tag("button", named, type="button"), scope="col", aria_sort="none", class_="w" if words else None)


def _line(row: CellSummary, name: str, group: int, columns: Sequence[Column], marks: Sequence[dict[str, Mark]]) -> Html:
    cell = row.cell_id
    link = tag("a", name, href=f"#cell={cell}")
    head = tag("th", link, _flag(row), scope="row", data_v=name)
    return tag(
        "tr",
        head,
        (_field(column, row, mark.get(cell)) for column, mark in zip(columns, marks, strict=True)),
        data_cell=cell,
        data_group=group,
        data_library=row.settings.library,
        data_verdict=row.verdict or "none",
        data_status=row.status,
    )


def _flag(row: CellSummary) -> Html | None:
    if not row.flags:
        return None
    return tag("span", "⚠", class_="flag", title=f"While it was timed: {'; '.join(row.flags)}", role="img",
               aria_label="the machine was disturbed")  # fmt: skip


def _field(column: Column, row: CellSummary, mark: str | None) -> Html:
    value = column.sort(row)
    shown = column.show(row) if value is not None else tag("span", ABSENT, class_="absent")
    signs = {"best": "best of this column", "level": "cannot be told from the best"}
    sign = (
        tag("span", "≈" if mark == "level" else "★", class_="sign", role="img", aria_label=signs[mark])
        if mark
        else None
    )
    kind = " ".join(filter(None, ("w" if column.words else "", mark or "")))
    return tag("td", sign, shown, data_v=value, class_=kind or None)


def _marks(column: Column, made: Sequence[Group]) -> dict[str, Mark]:
    """Cell id → `best` or `level`, within each group: figures of different corpora or devices do not compete."""
    found: dict[str, Mark] = {}
    for group in made:
        found |= ranking.marks(group.measured, column.metric(group.measured))
    return found


def _of_group(made: Sequence[Group]) -> Iterator[Column]:
    """Which corpus and device, where there are several: cells are named within theirs."""
    if len(made) > 1:
        label = {row.cell_id: group.label for group in made for row in group.rows}
        yield Column("on", "", lambda row: label[row.cell_id], lambda row: label[row.cell_id], words=True)


def _columns(rows: Sequence[CellSummary]) -> Iterator[Column]:
    splits = tuple(dict.fromkeys(split for row in rows for split in row.splits))
    rate, against = rate_name(rows), reference(rows)
    for way in apart(rows, "wer"):
        yield _apart(_rate(rate, "wer"), way)
        yield _apart(_figure(f"against {against}", "points", CellSummary.difference, points), way)
    yield Column("verdict", "", _rank, lambda row: row.verdict and badge(row.verdict), words=True)
    yield _figure("RTF", "", ranking.rtf, three_digits, ranking.speed_by(ranking.rtf))
    if any(row.record.speed is not None for row in rows):
        time = ranking.time_ratio
        yield Column(f"time / {against}", "", _value(time), _ratio, ranking.speed_by(time))
    yield Column("size", "MB", lambda row: row.size_bytes, _size, lambda rows: ranking.size())
    for split in splits if len(splits) > 1 else ():
        yield from (_apart(_rate(f"{rate} {split}", "wer", split), way) for way in apart(rows, "wer"))
    if any(row.nonspeech_words_per_min is not None for row in rows):
        yield _number("non-speech", "words/min", lambda row: row.nonspeech_words_per_min, three_digits)
    if rate != "CER":
        yield from (_apart(_rate("CER", "cer"), way) for way in apart(rows, "cer"))
    yield _number("cold start", "s", lambda row: row.record.cold_start_s, "{:.2f}".format)
    yield _number("peak memory", "MB", lambda row: row.record.peak_memory_bytes, lambda size: f"{size / MB:,.0f}")
    yield Column("library", "", lambda row: row.settings.library, lambda row: row.settings.library, words=True)
    yield _number("bits", "", lambda row: row.settings.bits, "{:g}".format)
    if any(not row.ok for row in rows):
        yield Column("status", "", lambda row: row.status, lambda row: status(row.status), words=True)


def _apart(column: Column, way: tuple[tuple[str, ...], Callable[[CellSummary], bool]]) -> Column:
    """The column of one normaliser and scorer."""
    told, stands_in = way
    return replace(
        column,
        title=", ".join((column.title, *told)),
        sort=lambda row: column.sort(row) if stands_in(row) else None,
        metric=lambda rows: column.metric(rows) if any(map(stands_in, rows)) else None,
    )


def _rate(title: str, rate: Rate, split: str | None = None) -> Column:
    metric = ranking.accuracy(rate, split)
    return _figure(title, "%", lambda row: row.rate(rate, split), percent, lambda rows: metric)


def _figure(
    title: str,
    unit: str,
    find: Figure,
    show: Callable[[float], str],
    metric: Callable[[Sequence[CellSummary]], Metric | None] = lambda rows: None,
) -> Column:
    """A column of figures with their intervals."""
    return Column(title, unit, _value(find), lambda row: _with_interval(find(row), show), metric)


def _number(title: str, unit: str, find: Callable[[CellSummary], float | None], show: Callable[[float], str]) -> Column:
    """A column of figures without any."""
    return Column(title, unit, find, lambda row: None if (found := find(row)) is None else show(found))


def _value(find: Figure) -> Callable[[CellSummary], float | None]:
    return lambda row: None if (found := find(row)) is None else found.value


def _with_interval(estimate: Estimate | None, show: Callable[[float], str]) -> Html | None:
    if estimate is None:
        return None
    if estimate.ci95 is None:
        return join(show(estimate.value))
    low, high = map(show, estimate.ci95)
    return join(show(estimate.value), tag("small", f"{low} to {high}"))


def _ratio(row: CellSummary) -> object:
    speed = row.record.speed
    if row.is_baseline or speed is None:
        return "1"
    low, high = map(ratio, speed.ci95)
    return join(ratio(speed.ratio), tag("small", f"{low} to {high}, {speed.verdict}"))


def _size(row: CellSummary) -> object:
    reduction = row.record.size_reduction
    smaller = tag("small", f"{percent(reduction, 0)} % smaller") if reduction else None
    return join(megabytes(row.size_bytes or 0), smaller)


def _rank(row: CellSummary) -> int | None:
    return VERDICTS[row.verdict][1] if row.verdict else None


def badge(verdict: str) -> Html:
    """A verdict with its sign."""
    return tag("span", tag("span", VERDICTS[verdict][0], aria_hidden="true"), f" {verdict}", class_=f"badge {verdict}")


def status(word: str) -> Html:
    """A status with its colour."""
    return tag("span", word, class_=f"badge {'fine' if word == 'ok' else 'bad' if word != 'unsupported' else 'none'}")
