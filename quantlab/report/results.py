"""The main table: device and method against WER, CER, RTF and size, and how a figure of it is written.

Layout of Tables 2 and 3 of Söhler, Irigoyen, Kirkedal (arXiv 2511.08093).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from quantlab.report import ranking
from quantlab.report.parts import Cell, Section, Table
from quantlab.report.rows import Row
from quantlab.report.study import Change, Group
from quantlab.report.wording import (
    ABSENT,
    between,
    depends_on_batch,
    loops,
    no_baseline,
    noise,
    percent,
    points,
    rate_name,
    ratio,
    scorings,
    sizes,
    three_digits,
    too_few,
)


@dataclass(frozen=True)
class _Column:
    title: str
    show: Callable[[Row], str | None]
    metric: ranking.Metric | None = None
    words: bool = False


def results(group: Group) -> Section:
    """Device and method against WER, CER, RTF and size reduction."""
    columns = [column for column in _columns(group) if any(column.show(row) is not None for row in group.rows)]
    marks = [ranking.marks(group.rows, column.metric) for column in columns]
    lines = tuple(
        (
            Cell(str(row["device"])),
            Cell(group.methods[row["cell_id"]]),
            *(
                Cell(column.show(row) or ABSENT, mark.get(row["cell_id"], ""))
                for column, mark in zip(columns, marks, strict=True)
            ),
        )
        for row in group.rows
    )
    header = ("device", "method", *(column.title for column in columns))
    align = "ll" + "".join("l" if column.words else "r" for column in columns)
    table = Table(header, lines, caption("Results", group), align)
    return Section(group.title, table=table, notes=tuple(_notes_of_results(group)))


def _columns(group: Group) -> Iterator[_Column]:
    name = rate_name(group.rows)
    for rate, title in {"wer": name, "cer": "CER"}.items() if name != "CER" else [("wer", name)]:
        for split in group.splits:
            yield _Column(f"{title} % {split}", rate_field(rate, split), ranking.accuracy(rate, split))
    yield _Column("RTF", rtf_field, ranking.speed(group.rows))
    yield _Column("time ×base", _ratio, words=True)
    yield _Column("smaller by %", reduction_field, ranking.size())
    yield _Column("non-speech words/min", _nonspeech)
    yield _Column(f"{name} against baseline", lambda row: row["verdict"], words=True)


def rate_field(rate: str, split: str) -> Callable[[Row], str | None]:
    def show(row: Row) -> str | None:
        part = row["splits"].get(split)
        if part is None or part[rate] is None:
            return None
        return percent(part[rate]) + between(part[f"{rate}_ci95"], percent)

    return show


def rtf_field(row: Row) -> str | None:
    value = ranking.rtf(row)
    return None if value is None else three_digits(value) + between(ranking.rtf_ci95(row), three_digits)


def _ratio(row: Row) -> str | None:
    speed = row["speed"]
    if speed is None:
        return None
    return f"{ratio(speed['ratio'])}{between(speed['ci95'], ratio)} {speed['verdict']}"


def _nonspeech(row: Row) -> str | None:
    found = row["nonspeech_words_per_min"]
    return None if found is None else three_digits(found)


def reduction_field(row: Row) -> str | None:
    return None if row["size_reduction"] is None else percent(row["size_reduction"], 1)


def _notes_of_results(group: Group) -> Iterator[str]:
    measured = [row for row in group.rows if ranking.rtf(row) is not None]
    if len(measured) > 1 and all(row["speed"] is None and ranking.rtf_ci95(row) is None for row in measured):
        yield "Speed was measured once: which cell is faster is not shown. protocol=careful shows it."
    for how in scorings(group.rows).values():
        yield f"Scored by {how}."
    for _, what in too_few(group.rows):
        yield f"Too few utterances: {what}."
    for cells, what in sizes(group.rows, group.methods):
        yield f"Size of {cells}: {what}."
    for cells, what in (*loops(group.rows, group.methods), *depends_on_batch(group.rows, group.methods)):
        yield f"{cells}: {what}."
    for cells, what in no_baseline(group.rows, group.methods):
        yield f"No verdict of {cells}: {what}."
    for cells, what in noise(group.rows, group.methods):
        yield f"While timed, {cells}: {what}."


def caption(what: str, group: Group) -> str:
    return f"{what}: {group.title}"


def points_field(change: Change) -> str:
    """A difference in points with its interval."""
    return ABSENT if change.value is None else points(change.value) + between(change.ci95, points)
