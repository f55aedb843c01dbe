"""The main table: WER, CER, RTF and size by device and method, and the format of its figures.

Layout of Tables 2 and 3 of Söhler, Irigoyen, Kirkedal (arXiv 2511.08093).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from quantlab.report import ranking
from quantlab.report.against import asked_for, compared
from quantlab.report.cell_summary import CellSummary, Rate
from quantlab.report.parts import Cell, Section, Table
from quantlab.report.study import Group
from quantlab.report.wording import (
    ABSENT,
    between,
    compared_elsewhere,
    depends_on_batch,
    estimate,
    little_calibration,
    loops,
    no_verdict,
    noise,
    percent,
    points,
    rate_name,
    ratio,
    scorings,
    sizes,
    stopped,
    three_digits,
    too_few,
)
from quantlab.stats.estimate import Estimate


@dataclass(frozen=True)
class _Column:
    title: str
    show: Callable[[CellSummary], str | None]
    metric: ranking.Metric | None = None
    words: bool = False


def results(group: Group) -> Section:
    """WER, CER, RTF and size reduction by device and method."""
    columns = [column for column in _columns(group) if any(column.show(row) is not None for row in group.rows)]
    marks = [ranking.marks(group.rows, column.metric) for column in columns]
    lines = tuple(
        (
            Cell(str(row.settings.device)),
            Cell(group.methods[row.cell_id]),
            *(
                Cell(column.show(row) or ABSENT, mark.get(row.cell_id, ""))
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
    rates: dict[Rate, str] = {"wer": name} if name == "CER" else {"wer": name, "cer": "CER"}
    for rate, title in rates.items():
        for split in group.splits:
            yield _Column(f"{title} % {split}", rate_field(rate, split), ranking.accuracy(rate, split))
    yield _Column("RTF", rtf_field, ranking.speed(group.rows))
    yield _Column("time ×base", _ratio, words=True)
    yield _Column("smaller by %", reduction_field, ranking.size())
    yield _Column("non-speech words/min", lambda row: _per_min(row.nonspeech_words_per_min))
    for split in dict.fromkeys(split for row in group.rows for split in row.splits):
        yield _Column(f"non-speech words/min {split}", partial(_nonspeech, split))
    against = asked_for(group.rows) or "baseline"
    yield _Column(f"words/min against {against}", _invented, words=True)
    yield _Column(f"{name} against {asked_for(group.rows) or 'baseline'}", lambda row: row.verdict, words=True)


def rate_field(rate: Rate, split: str) -> Callable[[CellSummary], str | None]:
    return lambda row: None if (found := row.rate(rate, split)) is None else estimate(found, percent)


def rtf_field(row: CellSummary) -> str | None:
    return None if row.rtf is None else estimate(row.rtf, three_digits)


def _ratio(row: CellSummary) -> str | None:
    speed = row.record.speed
    if speed is None:
        return None
    return f"{ratio(speed.ratio)}{between(speed.ci95, ratio)} {speed.verdict}"


def _per_min(found: Estimate | None) -> str | None:
    return None if found is None else estimate(found, three_digits)


def _nonspeech(split: str, row: CellSummary) -> str | None:
    return _per_min(row.nonspeech_in(split))


def _invented(row: CellSummary) -> str | None:
    """Difference of words per minute and its verdict."""
    found = row.nonspeech
    return None if found is None else f"{estimate(found.difference, _signed)} {found.verdict}"


def _signed(words: float) -> str:
    return f"{words:+.1f}".replace("-", "−")


def reduction_field(row: CellSummary) -> str | None:
    return None if row.record.size_reduction is None else percent(row.record.size_reduction, 1)


def _notes_of_results(group: Group) -> Iterator[str]:
    measured = [(row.record.speed, row.rtf) for row in group.rows if row.rtf is not None]
    if len(measured) > 1 and all(speed is None and rtf.ci95 is None for speed, rtf in measured):
        yield "Speed was measured once: which cell is faster is not shown. protocol=careful shows it."
    for how in scorings(group.rows).values():
        yield f"Scored by {how}."
    for _, what in too_few(group.rows):
        yield f"Too few utterances: {what}."
    for cells, what in sizes(group.rows, group.methods):
        yield f"Size of {cells}: {what}."
    for found in (stopped, loops, depends_on_batch, little_calibration, compared_elsewhere):
        yield from (f"{cells}: {what}." for cells, what in found(group.rows, group.methods))
    for cell, others in compared(group.rows, group.methods):
        yield f"Compared with {cell}: {others}."
    for cells, what in no_verdict(group.rows, group.methods):
        yield f"No verdict of {cells}: {what}."
    for cells, what in noise(group.rows, group.methods):
        yield f"While timed, {cells}: {what}."


def caption(what: str, group: Group) -> str:
    return f"{what}: {group.title}"


def points_field(change: Estimate | None) -> str:
    """A difference in points with its interval."""
    return ABSENT if change is None else estimate(change, points)
