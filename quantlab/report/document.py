"""The report as a document: headings, paragraphs and tables, for every format that is read on paper or on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantlab.report import published, ranking, study
from quantlab.report.factors import ChoiceEffect, choice_effects
from quantlab.report.published import Match
from quantlab.report.rows import Row
from quantlab.report.study import Change, Group, Priority
from quantlab.report.wording import (
    ABSENT,
    between,
    cell_name,
    megabytes,
    noise,
    p_value,
    percent,
    points,
    ratio,
    three_digits,
    unquantized,
)

Mark = Literal["best", "level", ""]
_READING = (
    "WER and CER in percent over a whole split, differences in percentage points, RTF = generation time / audio time.",
    "[low, high] is a 95 % interval; an RTF without one was measured once.",
    "Bold: the best figure of the column; ≈: the intervals cannot tell it from the best.",
)


@dataclass(frozen=True)
class Cell:
    """One field of a table."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption."""

    header: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]
    caption: str
    align: str  # one letter a column: l words, r figures, p sentences that may wrap


@dataclass(frozen=True)
class Section:
    """A heading, what stands before the table as a list, the table, and notes on it."""

    heading: str
    bullets: tuple[str, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()
    level: int = 2  # of the heading; 3 stands within the 2 before


def sections(root: Path, rows: Sequence[Row]) -> list[Section]:
    """The whole content, in reading order; raw utterances below `root` are read where design choices vary."""
    found = [part for group in study.groups(rows) for part in _of_group(root, group)]
    reading = Section("How to read the tables", bullets=(*_READING, *_comparisons(rows)))
    return [reading, *found, *_side_by_side(published.matches(rows)), *_not_measured(rows)]


def _comparisons(rows: Sequence[Row]) -> Iterator[str]:
    """How cells were compared with their baseline, where they were."""
    compared = next((row["comparison"] for row in rows if row["comparison"] is not None), None)
    if compared is not None:
        yield (
            "WER against baseline: a paired bootstrap, Holm-corrected over all cells; tied where the interval stays "
            f"below a margin of {percent(compared['margin'], 1)} points, underpowered where it does not."
        )
    if any(row["speed"] is not None for row in rows):
        yield "Time ×base: time of the cell / time of its baseline, taking turns on the same batches."


def _of_group(root: Path, group: Group) -> Iterator[Section]:
    yield results(group)
    choices = study.priorities(group)
    if choices:
        yield by_priority(group, choices)
    if study.increases(group):
        yield wer_increase(group)
    if study.gaps(group):
        yield robustness(group)
    effects = choice_effects(root, group.rows)
    if effects:
        yield design_choices(group, effects)


# Tables 2 and 3


@dataclass(frozen=True)
class _Column:
    title: str
    show: Callable[[Row], str | None]
    metric: ranking.Metric | None = None
    words: bool = False


def results(group: Group) -> Section:
    """Device and method against WER, CER, RTF and size reduction."""
    columns = [column for column in _columns(group) if any(column.show(row) is not None for row in group.rows)]
    marks = [_marks(column.metric, group.rows) for column in columns]
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
    table = Table(header, lines, _caption("Results", group), align)
    return Section(group.title, table=table, notes=tuple(_notes_of_results(group)))


def _caption(what: str, group: Group) -> str:
    return f"{what}: {group.title}"


def _columns(group: Group) -> Iterator[_Column]:
    for rate in ("wer", "cer"):
        for split in group.splits:
            yield _Column(f"{rate.upper()} % {split}", _rate(rate, split), ranking.accuracy(rate, split))
    yield _Column("RTF", _rtf, ranking.speed(group.rows))
    yield _Column("time ×base", _ratio, words=True)
    yield _Column("smaller by %", _reduction, ranking.size())
    yield _Column("WER against baseline", lambda row: row["verdict"], words=True)


def _rate(rate: str, split: str) -> Callable[[Row], str | None]:
    def show(row: Row) -> str | None:
        part = row["splits"].get(split)
        if part is None or part[rate] is None:
            return None
        return percent(part[rate]) + between(part[f"{rate}_ci95"], percent)

    return show


def _rtf(row: Row) -> str | None:
    value = ranking.rtf(row)
    return None if value is None else three_digits(value) + between(ranking.rtf_ci95(row), three_digits)


def _ratio(row: Row) -> str | None:
    speed = row["speed"]
    if speed is None:
        return None
    return f"{ratio(speed['ratio'])}{between(speed['ci95'], ratio)} {speed['verdict']}"


def _reduction(row: Row) -> str | None:
    return None if row["size_reduction"] is None else percent(row["size_reduction"], 1)


def _marks(metric: ranking.Metric | None, rows: Sequence[Row]) -> dict[str, Mark]:
    """Cell id → mark; nothing where there is nothing to compare."""
    ranked = ranking.rank(rows, metric) if metric is not None else None
    if ranked is None or not (ranked.level or ranked.unknown or ranked.others):
        return {}
    level: dict[str, Mark] = {row["cell_id"]: "level" for row in ranked.level}
    return level | {ranked.leader["cell_id"]: "best"}


def _notes_of_results(group: Group) -> Iterator[str]:
    measured = [row for row in group.rows if ranking.rtf(row) is not None]
    if len(measured) > 1 and all(row["speed"] is None and ranking.rtf_ci95(row) is None for row in measured):
        yield "Speed was measured once: which cell is faster is not shown. protocol=careful shows it."
    for cells, what in noise(group.rows, group.methods):
        yield f"While timed, {cells}: {what}."


# Table 4


def by_priority(group: Group, choices: Sequence[Priority]) -> Section:
    """The best cell by each priority with what it costs, where the data show one."""
    lines = tuple(_choice(group, choice) for choice in choices)
    header = ("device", "priority", "best", "what it comes with")
    table = Table(header, lines, _caption("Best by priority", group), "llpp")
    note = "A cell is called best only where the 95 % intervals of all others lie apart from its own."
    return Section("Best by priority", table=table, notes=(note,), level=3)


def _choice(group: Group, choice: Priority) -> tuple[Cell, ...]:
    found, named = choice.ranking, group.methods
    leader = named[found.leader["cell_id"]]
    best = (
        Cell(leader, "best")
        if found.shown
        else Cell(f"{leader} leads, but is not shown to be best: {_why(choice, named)}")
    )
    return Cell(choice.device), Cell(choice.name), best, Cell(trade_off(found.leader, choice.name))


def _why(choice: Priority, named: dict[str, str]) -> str:
    level, unknown = (
        _listed([named[row["cell_id"]] for row in rows]) for rows in (choice.ranking.level, choice.ranking.unknown)
    )
    parts = [f"cannot be told from {level}"] if level else []
    parts += [f"no interval to tell it from {unknown}"] if unknown else []
    return "; ".join(parts)


def _listed(items: Sequence[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def trade_off(row: Row, priority: str = "") -> str:
    """A cell's speed, accuracy and size in words, that of the priority first."""
    parts = {
        "fastest": _speed_words(row),
        "most accurate": _accuracy_words(row),
        "smallest": _size_words(row),
    }
    first = [parts.pop(priority)] if priority in parts else []
    return "; ".join(part for part in (*first, *parts.values()) if part)


def _speed_words(row: Row) -> str:
    value = _rtf(row)
    if value is None:
        return ""
    speed = row["speed"]
    if speed is None:
        return f"RTF {value}"
    return (
        f"RTF {value}, {ratio(speed['ratio'])} × {unquantized(row)}{between(speed['ci95'], ratio)} ({speed['verdict']})"
    )


def _accuracy_words(row: Row) -> str:
    if row["wer"] is None:
        return ""
    text = f"WER {percent(row['wer'])} %{between(row['wer_ci95'], percent)}"
    change = study.increase(row)
    if change.value is None:
        return text
    return f"{text}, {_points(change)} points against {unquantized(row)} ({row['verdict']})"


def _size_words(row: Row) -> str:
    reduction = row["size_reduction"]
    size = f"{megabytes(row['size_bytes'])} MB"
    return f"{size}, {percent(reduction, 0)} % smaller" if reduction else size


# Figure 1 and the robustness gap


def wer_increase(group: Group) -> Section:
    """WER minus the baseline's in each split."""
    lines = tuple(
        (
            Cell(str(row["device"])),
            Cell(group.methods[row["cell_id"]]),
            *(Cell(_points(changes[split])) for split in group.splits),
            Cell(_points(study.increase(row))),
            Cell(row["verdict"] or ABSENT),
        )
        for row, changes in study.increases(group)
    )
    header = ("device", "method", *(f"{split}, points" for split in group.splits), "all, points", "verdict")
    align = "ll" + "r" * (len(group.splits) + 1) + "l"
    table = Table(header, lines, _caption("WER increase against the baseline", group), align)
    return Section("WER increase against the baseline", table=table, level=3)


def robustness(group: Group) -> Section:
    """WER of the hard split minus that of the easy one."""
    found = study.gaps(group)
    several = len({gap.hard for gap in found}) > 1
    lines = tuple(
        (
            Cell(str(gap.row["device"])),
            Cell(group.methods[gap.row["cell_id"]] + (f", {gap.hard}" if several else "")),
            Cell(_points(gap.gap)),
            Cell(_points(gap.change)),
        )
        for gap in found
    )
    hard = "the other split" if several else found[0].hard
    header = ("device", "method", "gap, points", "change, points")
    table = Table(header, lines, _caption("Robustness gap", group), "llrr")
    note = f"Gap: WER {hard} − WER {found[0].easy}; change: the gap − the baseline's gap."
    return Section("Robustness gap", table=table, notes=(note,), level=3)


# Design choices


def design_choices(group: Group, effects: Sequence[ChoiceEffect]) -> Section:
    """The main effect of every level of a choice, over pairs of cells that agree in all other choices."""
    lines = tuple(
        (
            *(Cell(text) for text in (item.device, item.library, item.choice, item.level, item.reference)),
            Cell(_points(Change(item.effect.mean.value, item.effect.mean.ci95))),
            Cell(f"{points(item.effect.smallest)} to {points(item.effect.largest)}"),
            Cell(p_value(item.p_holm)),
            Cell(str(item.effect.pairs)),
            Cell(str(len(item.alone))),
        )
        for item in effects
    )
    settings = ("device", "library", "choice", "level", "against")
    header = (*settings, "WER, points", "in single pairs", "p", "pairs", "alone")
    table = Table(header, lines, _caption("What each design choice costs", group), "lllllrrrrr")
    notes = (
        "Mean difference in pooled WER over the pairs of cells that differ in this choice alone; Holm-corrected over "
        "the lines of the table. Where single pairs lie far apart, the cost depends on the other choices.",
        *_alone(group, effects),
    )
    return Section("What each design choice costs", table=table, notes=notes, level=3)


def _alone(group: Group, effects: Sequence[ChoiceEffect]) -> Iterator[str]:
    ids = dict.fromkeys(cell_id for item in effects for cell_id in item.alone)
    if ids:
        named = _listed([group.methods[cell_id] for cell_id in ids])
        yield f"Alone, without a partner in some line, where they do not count: {named}."


def _points(change: Change) -> str:
    return ABSENT if change.value is None else points(change.value) + between(change.ci95, points)


# Published against measured


def _side_by_side(matched: Sequence[Match]) -> Iterator[Section]:
    if not matched:
        return
    splits = tuple(dict.fromkeys(split for match in matched for split in match.figures.wer))
    header = ["cell", "source"]
    for title in (*(f"WER % {split}" for split in splits), "RTF", "smaller by %"):
        header += [f"{title}, published", f"{title}, measured"]
    lines = tuple(_compared(match, splits) for match in matched)
    yield Section(
        "Published against measured",
        tuple(_sources(matched)),
        Table(tuple(header), lines, "Published against measured", "ll" + "r" * (len(header) - 2)),
        tuple(f"{cell_name(match.row)}: {'; '.join(match.notes)}." for match in matched if match.notes),
    )


def _compared(match: Match, splits: Sequence[str]) -> tuple[Cell, ...]:
    there = match.figures
    pairs: list[str | None] = []
    for split in splits:
        told = there.wer.get(split)
        pairs += [None if told is None else f"{told:g}", _rate("wer", split)(match.row)]
    rtf = there.real_time_factor
    pairs += [None if rtf is None else f"{rtf:.3g}", _rtf(match.row)]
    pairs += [None if there.size_reduction is None else f"{there.size_reduction:g}", _reduction(match.row)]
    return (Cell(cell_name(match.row)), Cell(there.source), *(Cell(text or ABSENT) for text in pairs))


def _sources(matched: Sequence[Match]) -> Iterator[str]:
    for key, source in {match.figures.source: match.source for match in matched}.items():
        yield f"{key}: {source.authors}, “{source.title}”, {source.where}, {source.url}"


# What is missing


def _not_measured(rows: Sequence[Row]) -> Iterator[Section]:
    bad = [row for row in rows if row["status"] != "ok"]
    if bad:
        lines = tuple((Cell(cell_name(row)), Cell(row["status"]), Cell(row["reason"] or ABSENT)) for row in bad)
        yield Section("Not measured", table=Table(("cell", "status", "reason"), lines, "Not measured", "llp"))
