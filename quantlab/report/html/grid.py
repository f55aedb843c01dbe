"""The table of all cells: complete without a script, which then makes it sortable and filters it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from quantlab.report import ranking
from quantlab.report.html.markup import Html, join, tag
from quantlab.report.html.summary import POOLED as ALL
from quantlab.report.html.summary import Estimate, Group, difference, groups, labels, wer
from quantlab.report.parts import Mark
from quantlab.report.ranking import Metric
from quantlab.report.rows import Row
from quantlab.report.wording import ABSENT, apart, megabytes, percent, points, rate_name, ratio, reference, three_digits

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
    sort: Callable[[Row], float | str | None]  # what it is sorted by; None comes last
    show: Callable[[Row], object]
    metric: Callable[[Sequence[Row]], Metric | None] = lambda rows: None  # what is best in it
    words: bool = False


def table(rows: Sequence[Row]) -> Html:
    """All cells in the order of the rows."""
    made = groups(rows)
    columns = [
        column for column in (*_of_group(made), *_columns(rows)) if any(column.sort(row) is not None for row in rows)
    ]
    marks = [_marks(column, made) for column in columns]
    number = {row["cell_id"]: index for index, group in enumerate(made) for row in group.rows}
    named = labels(rows)
    head = tag("tr", _head("cell", "", words=True), (_head(c.title, c.unit, c.words) for c in columns))
    body = (_line(row, named[row["cell_id"]], number[row["cell_id"]], columns, marks) for row in rows)
    return tag("table", tag("thead", head), tag("tbody", body), id="cells", aria_describedby="cells-note")


def _head(title: str, unit: str, words: bool) -> Html:
    named = join(title, " ", tag("small", unit)) if unit else title
    return tag("th", tag("button", named, type="button"), scope="col", aria_sort="none", class_="w" if words else None)


def _line(row: Row, name: str, group: int, columns: Sequence[Column], marks: Sequence[dict[str, Mark]]) -> Html:
    cell = row["cell_id"]
    link = tag("a", name, href=f"#cell={cell}")
    head = tag("th", link, _flag(row), scope="row", data_v=name)
    return tag(
        "tr",
        head,
        (_field(column, row, mark.get(cell)) for column, mark in zip(columns, marks, strict=True)),
        data_cell=cell,
        data_group=group,
        data_library=row["library"],
        data_verdict=row["verdict"] or "none",
        data_status=row["status"],
    )


def _flag(row: Row) -> Html | None:
    flags = (row["noise"] or {}).get("flags")
    if not flags:
        return None
    return tag("span", "⚠", class_="flag", title=f"While it was timed: {'; '.join(flags)}", role="img",
               aria_label="the machine was disturbed")  # fmt: skip


def _field(column: Column, row: Row, mark: str | None) -> Html:
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
        label = {row["cell_id"]: group.label for group in made for row in group.rows}
        yield Column("on", "", lambda row: label[row["cell_id"]], lambda row: label[row["cell_id"]], words=True)


def _columns(rows: Sequence[Row]) -> Iterator[Column]:
    splits = tuple(dict.fromkeys(split for row in rows for split in row["splits"]))
    rate = rate_name(rows)
    for way in apart(rows, "wer"):
        yield _apart(_wer(ALL, rate), way)
        against = Column(f"against {reference(rows)}", "points", _value(lambda row: difference(row, ALL)), _change)
        yield _apart(against, way)
    yield Column("verdict", "", _rank, lambda row: badge(row["verdict"]), words=True)
    yield Column("RTF", "", ranking.rtf, _rtf, _speed_of("rtf"))
    if any(row["speed"] is not None for row in rows):
        yield Column(f"time / {reference(rows)}", "", ranking.ratio, _ratio, _speed_of("ratio"))
    yield Column("size", "MB", lambda row: row["size_bytes"], _size, lambda rows: ranking.size())
    for split in splits if len(splits) > 1 else ():
        yield from (_apart(_wer(split, f"{rate} {split}"), way) for way in apart(rows, "wer"))
    if any(row["nonspeech_words_per_min"] is not None for row in rows):
        yield Column("non-speech", "words/min", lambda row: row["nonspeech_words_per_min"],
                     lambda row: three_digits(row["nonspeech_words_per_min"]))  # fmt: skip
    if rate != "CER":
        cer = Column("CER", "%", lambda row: row["cer"], _cer, lambda rows: ranking.accuracy("cer"))
        yield from (_apart(cer, way) for way in apart(rows, "cer"))
    yield Column("cold start", "s", lambda row: row["cold_start_s"], lambda row: f"{row['cold_start_s']:.2f}")
    yield Column("peak memory", "MB", lambda row: row["peak_memory_bytes"],
                 lambda row: f"{row['peak_memory_bytes'] / 1e6:,.0f}")  # fmt: skip
    yield Column("library", "", lambda row: row["library"], lambda row: row["library"], words=True)
    yield Column("bits", "", lambda row: row["bits"], lambda row: f"{row['bits']:g}")
    if any(row["status"] != "ok" for row in rows):
        yield Column("status", "", lambda row: row["status"], lambda row: status(row["status"]), words=True)


def _apart(column: Column, way: tuple[tuple[str, ...], Callable[[Row], bool]]) -> Column:
    """The column of one normaliser and scorer."""
    told, stands_in = way
    return replace(
        column,
        title=", ".join((column.title, *told)),
        sort=lambda row: column.sort(row) if stands_in(row) else None,
        metric=lambda rows: column.metric(rows) if any(map(stands_in, rows)) else None,
    )


def _wer(split: str, title: str) -> Column:
    def found(row: Row) -> Estimate | None:
        return wer(row, split) if split == ALL or split in row["splits"] else None

    def show(row: Row) -> object:
        return _with_interval(found(row), percent)

    metric = ranking.accuracy(split=None if split == ALL else split)
    return Column(title, "%", _value(found), show, lambda rows: metric)


def _value(find: Callable[[Row], Estimate | None]) -> Callable[[Row], float | None]:
    return lambda row: None if (found := find(row)) is None else found.value


def _with_interval(estimate: Estimate | None, show: Callable[[float], str]) -> Html | None:
    if estimate is None:
        return None
    if estimate.ci95 is None:
        return join(show(estimate.value))
    low, high = map(show, estimate.ci95)
    return join(show(estimate.value), tag("small", f"{low} to {high}"))


def _change(row: Row) -> object:
    return _with_interval(difference(row, ALL), points)


def _cer(row: Row) -> object:
    return _with_interval(Estimate(row["cer"], row["cer_ci95"]), percent)


def _rtf(row: Row) -> object:
    return _with_interval(Estimate(ranking.rtf(row) or 0.0, ranking.rtf_ci95(row)), three_digits)


def _ratio(row: Row) -> object:
    if row["verdict"] == "baseline":
        return "1"
    speed = row["speed"]
    low, high = map(ratio, speed["ci95"])
    return join(ratio(speed["ratio"]), tag("small", f"{low} to {high}, {speed['verdict']}"))


def _speed_of(figure: str) -> Callable[[Sequence[Row]], Metric | None]:
    """The ranking of speed, in the column of the figure that it rests on."""

    def metric(rows: Sequence[Row]) -> Metric | None:
        found = ranking.speed(rows)
        return found if (found.value is ranking.ratio) == (figure == "ratio") else None

    return metric


def _size(row: Row) -> object:
    reduction = row["size_reduction"]
    return join(megabytes(row["size_bytes"]), tag("small", f"{percent(reduction, 0)} % smaller") if reduction else None)


def _rank(row: Row) -> int | None:
    return VERDICTS[row["verdict"]][1] if row["verdict"] in VERDICTS else None


def badge(verdict: str) -> Html:
    """A verdict with its sign."""
    return tag("span", tag("span", VERDICTS[verdict][0], aria_hidden="true"), f" {verdict}", class_=f"badge {verdict}")


def status(word: str) -> Html:
    """A status with its colour."""
    return tag("span", word, class_=f"badge {'fine' if word == 'ok' else 'bad' if word != 'unsupported' else 'none'}")
