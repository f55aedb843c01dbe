"""The HTML table of all cells: complete without JavaScript, which adds sorting and filtering."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markupsafe import Markup

from quantlab.analysis.evidence import Word
from quantlab.report import ranking
from quantlab.report.against import baseline, reference
from quantlab.report.cell_summary import CellSummary, Rate
from quantlab.report.hidden import loop_share
from quantlab.report.html.summary import Group, groups, labels
from quantlab.report.html.templates import render
from quantlab.report.parts import Mark
from quantlab.report.ranking import Figure, Metric
from quantlab.report.study import rated_splits
from quantlab.report.wording import (
    ABSENT,
    MB,
    megabytes,
    percent,
    points,
    rate_columns,
    rate_name,
    ratio,
    three_digits,
)  # fmt: skip
from quantlab.stats.estimate import Estimate

VERDICTS: tuple[Word, ...] = (
    "better",
    "baseline",
    "reference",
    "tied",
    "underpowered",
    "worse",
)  # in sort order
Kind = Literal["figure", "words", "verdict", "status"]


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    title: str
    unit: str
    sort: Callable[[CellSummary], float | str | None]  # sort key; None comes last
    show: Callable[[CellSummary], tuple[str, str]]  # text and small print; called only if the sort key is not None
    metric: Callable[[Sequence[CellSummary]], Metric | None] = lambda rows: None  # ranks its cells, to mark the best
    kind: Kind = "figure"

    @property
    def words(self) -> bool:
        """Whether the column is text: sorted alphabetically and left-aligned."""
        return self.kind != "figure"


def table(rows: Sequence[CellSummary]) -> Markup:
    """Render the table of all cells, in the order of the rows."""
    made = groups(rows)
    columns = [
        column
        for column in (*_group_columns(made), *_columns(rows))
        if any(column.sort(row) is not None for row in rows)
    ]
    return render(
        "cells",
        rows=rows,
        named=labels(rows),
        number={row.cell_id: index for index, group in enumerate(made) for row in group.rows},
        columns=[(column, _marks(column, made)) for column in columns],
        absent=ABSENT,
    )


def _marks(column: Column, made: Sequence[Group]) -> dict[str, Mark]:
    """Cell id → `best` or `level` within its group, as figures of different corpora or devices are not comparable."""
    found: dict[str, Mark] = {}
    for group in made:
        found |= ranking.marks(group.measured, column.metric(group.measured))
    return found


def _group_columns(made: Sequence[Group]) -> Iterator[Column]:
    """Columns of corpus and device, if there are several: labels are unique only within a group."""
    if len(made) > 1:
        label = {row.cell_id: group.label for group in made for row in group.rows}
        yield _words("on", lambda row: label[row.cell_id])


def _columns(rows: Sequence[CellSummary]) -> Iterator[Column]:
    splits = rated_splits(rows)
    rate = rate_name(rows)
    for way in rate_columns(rows, "wer"):
        yield _restricted(_rate(rate, "wer"), way)
        yield _restricted(_figure(f"against {reference(rows)}", "points", CellSummary.difference, points), way)
    if any(found is not None and found.value for found in map(loop_share, rows)):
        yield _figure("loops", "%", loop_share, percent)
    if any(row.evidence.no_regression is not None for row in rows):
        yield _figure("not worse", "%", lambda row: row.evidence.no_regression, percent)
    yield replace(_words("verdict", lambda row: row.verdict or ""), sort=_rank, kind="verdict")
    yield _figure("RTF", "", ranking.rtf, three_digits, ranking.speed_by(ranking.rtf))
    if any(row.record.speed is not None for row in rows):
        time = ranking.time_ratio
        yield Column(f"time / {baseline(rows)}", "", _value(time), _ratio, ranking.speed_by(time))
    yield Column("size", "MB", lambda row: row.size_bytes, _size, lambda rows: ranking.size())
    for split in splits if len(splits) > 1 else ():
        yield from (_restricted(_rate(f"{rate} {split}", "wer", split), way) for way in rate_columns(rows, "wer"))
    if any(row.nonspeech_words_per_min is not None for row in rows):
        yield _figure("non-speech", "words/min", lambda row: row.nonspeech_words_per_min, three_digits)
        yield _words("non-speech verdict", lambda row: "" if row.nonspeech is None else row.nonspeech.verdict)
    if rate != "CER":
        yield from (_restricted(_rate("CER", "cer"), way) for way in rate_columns(rows, "cer"))
    yield _number("cold start", "s", lambda row: row.record.cold_start_s, "{:.2f}".format)
    yield _number("peak memory", "MB", lambda row: row.record.peak_memory_bytes, lambda size: f"{size / MB:,.0f}")
    yield _words("library", lambda row: row.settings.library)
    yield _number("bits", "", lambda row: row.settings.bits, "{:g}".format)
    if any(not row.ok for row in rows):
        yield replace(_words("status", lambda row: row.status), kind="status")


def _words(title: str, find: Callable[[CellSummary], str]) -> Column:
    return Column(title, "", find, lambda row: (find(row), ""), kind="words")


def _restricted(column: Column, way: tuple[tuple[str, ...], Callable[[CellSummary], bool]]) -> Column:
    """The column restricted to one normaliser and scorer."""
    words, stands_in = way
    return replace(
        column,
        title=", ".join((column.title, *words)),
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
    """A column of figures with intervals."""
    return Column(title, unit, _value(find), lambda row: _with_interval(find(row), show), metric)


def _number(title: str, unit: str, find: Callable[[CellSummary], float | None], show: Callable[[float], str]) -> Column:
    """A column of figures without intervals."""
    return Column(title, unit, find, lambda row: ("" if (found := find(row)) is None else show(found), ""))


def _value(find: Figure) -> Callable[[CellSummary], float | None]:
    return lambda row: None if (found := find(row)) is None else found.value


def _with_interval(found: Estimate | None, show: Callable[[float], str]) -> tuple[str, str]:
    if found is None:
        return "", ""
    return show(found.value), "" if found.ci95 is None else " to ".join(map(show, found.ci95))


def _ratio(row: CellSummary) -> tuple[str, str]:
    speed = row.record.speed
    if row.is_baseline or speed is None:
        return "1", ""
    return ratio(speed.ratio), f"{' to '.join(map(ratio, speed.ci95))}, {speed.verdict}"


def _size(row: CellSummary) -> tuple[str, str]:
    reduction = row.record.size_reduction
    return megabytes(row.size_bytes or 0), f"{percent(reduction, 0)} % smaller" if reduction else ""


def _rank(row: CellSummary) -> int | None:
    return VERDICTS.index(row.verdict) if row.verdict else None
