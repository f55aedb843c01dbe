"""Section on the best cell by each priority, with its trade-off in words."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.report.against import reference, unquantized
from quantlab.report.cell_summary import CellSummary
from quantlab.report.parts import Cell, Section, Table
from quantlab.report.results import caption, points_field, rtf_field
from quantlab.report.study import Group, Priority
from quantlab.report.wording import between, estimate, listed, megabytes, percent, rate_name, ratio


def by_priority(group: Group, choices: Sequence[Priority]) -> Section:
    """The best cell by each priority with its cost, where the data show one."""
    lines = tuple(_choice(group, choice) for choice in choices)
    header = ("device", "priority", "best", "what it comes with")
    table = Table(header, lines, caption("Best by priority", group), "llpp")
    note = (
        "A cell is called best only where the 95 % intervals of all others lie apart from its own. For error rates "
        "compared with the same cell these are the intervals of the paired difference from it."
    )
    return Section("Best by priority", table=table, notes=(note,), level=3)


def _choice(group: Group, choice: Priority) -> tuple[Cell, ...]:
    found, named = choice.ranking, group.methods
    leader = named[found.leader.cell_id]
    best = (
        Cell(leader, "best")
        if found.shown
        else Cell(f"{leader} leads, but is not shown to be best: {_why(choice, named)}")
    )
    return Cell(choice.device), Cell(choice.name), best, Cell(trade_off(found.leader, choice.name))


def _why(choice: Priority, named: dict[str, str]) -> str:
    level, unknown = (
        listed([named[row.cell_id] for row in rows]) for rows in (choice.ranking.level, choice.ranking.unknown)
    )
    parts = [f"cannot be told from {level}"] if level else []
    parts += [f"no interval to tell it from {unknown}"] if unknown else []
    return "; ".join(parts)


def trade_off(row: CellSummary, priority: str = "") -> str:
    """Speed, accuracy and size of a cell in words, the priority first."""
    parts = {
        "fastest": _speed_words(row),
        "most accurate": _accuracy_words(row),
        "smallest": _size_words(row),
    }
    first = [parts.pop(priority)] if priority in parts else []
    return "; ".join(part for part in (*first, *parts.values()) if part)


def _speed_words(row: CellSummary) -> str:
    value = rtf_field(row)
    if value is None:
        return ""
    speed = row.record.speed
    if speed is None:
        return f"RTF {value}"
    return f"RTF {value}, {ratio(speed.ratio)} × {unquantized(row)}{between(speed.ci95, ratio)} ({speed.verdict})"


def _accuracy_words(row: CellSummary) -> str:
    if row.wer is None:
        return ""
    text = f"{rate_name([row])} {estimate(row.wer, percent, ' %')}"
    change = row.difference()
    if change is None:
        return text
    return f"{text}, {points_field(change)} points against {reference([row])} ({row.verdict})"


def _size_words(row: CellSummary) -> str:
    reduction = row.record.size_reduction
    size = f"{megabytes(row.size_bytes or 0)} MB"
    return f"{size}, {percent(reduction, 0)} % smaller" if reduction else size
