"""Static parts of the page: what was measured, summary, interference, tables, environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from quantlab.report import document, ranking
from quantlab.report.against import asked_for, compared, reference
from quantlab.report.cell_summary import CellSummary
from quantlab.report.html.grid import VERDICTS
from quantlab.report.html.summary import Group, groups, labels
from quantlab.report.html.templates import render
from quantlab.report.priorities import trade_off
from quantlab.report.ranking import Metric
from quantlab.report.wording import (
    compared_elsewhere,
    corpora,
    failures,
    models,
    names,
    no_verdict,
    percent,
    rate_name,
    sizes,
    stopped,
    together,
    too_few,
    utterances,
)

_MOST = 5  # names per sentence


def title(rows: Sequence[CellSummary]) -> str:
    """Title of the page, e.g. `18 ways to run nano on demo, cpu`."""
    of = sorted(set(corpora(rows).values()))
    corpus = of[0] if len(of) == 1 else f"{len(of)} corpora"
    devices = _distinct(row.settings.device for row in rows)
    return f"Quantized {_some(sorted(set(models(rows).values())))} on {corpus}, {devices}"


def _distinct(values: Iterable[str]) -> str:
    return _some(sorted(set(map(str, values))))


def measured(rows: Sequence[CellSummary]) -> str:
    """One line on the amount of data, protocol, date and machine; several corpora are only counted."""
    first, last = min(row.record.created_at[:10] for row in rows), max(row.record.created_at[:10] for row in rows)
    when = first if first == last else f"{first} to {last}"
    audio_s, count = max(row.audio_s for row in rows), max(row.utterances for row in rows)
    corpora_count = len(set(corpora([row for row in rows if row.splits]).values()))
    parts = [
        f"{corpora_count} corpora"
        if corpora_count > 1
        else f"{utterances(count)}, {audio_s / 60:,.1f} min of speech"
        if count
        else None,
        f"protocol {_distinct(row.settings.protocol for row in rows)}",
        *environment_words(rows),
        when,
    ]
    return " · ".join(filter(None, parts))


def environment_words(rows: Sequence[CellSummary]) -> Iterator[str]:
    """Processor and threads in a few words."""
    found = Counter(
        str(row.record.environment.get("gpu") or row.record.environment.get("processor") or "")
        for row in rows
        if row.record.environment
    )
    found.pop("", None)
    if found:
        yield found.most_common(1)[0][0] + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    threads = sorted({str(row.settings.threads) for row in rows if row.settings.threads})
    if threads:
        yield f"{' or '.join(threads)} thread{'s' * (threads != ['1'])}"


def chips(rows: Sequence[CellSummary]) -> list[tuple[str, int]]:
    """Number of cells per outcome."""
    counts = Counter(row.status for row in rows)
    return sorted(counts.items(), key=lambda item: (item[0] != "ok", item[0]))


def in_short(rows: Sequence[CellSummary]) -> Markup:
    """Summary per corpus and device: one sentence, and up to three suggested cells."""
    named, called = labels(rows), names(rows)
    return render(
        "short",
        few=too_few(rows),
        answers=[_answer(group) | {"cards": list(_cards(group, named))} for group in groups(rows)],
        notes=[
            *stopped(rows, called),
            *sizes(rows, called),
            *no_verdict(rows, called),
            *compared_elsewhere(rows, called),
        ],
        compared=compared(rows, called),
        named=named,
    )


def _answer(group: Group) -> dict[str, Any]:
    """Number of cells per verdict."""
    counts = Counter(row.verdict for row in group.measured if row.verdict and not row.is_reference)
    shared = next((row.comparison for row in group.measured if row.comparison is not None), None)
    return {
        "label": group.label,
        "rate": rate_name(group.rows),
        "reference": reference(group.rows),
        "asked_for": asked_for(group.rows),
        "verdicts": [(word, counts[word]) for word in VERDICTS if word in counts],
        "margin": shared and percent(shared.margin, 1),
    }


@dataclass(frozen=True)
class Card:
    """A suggested cell, or the statement that there is none."""

    heading: str
    lines: tuple[str, ...]
    cell: str | None = None
    note: str | None = None


def _cards(group: Group, named: Mapping[str, str]) -> Iterator[Card | None]:
    rows = group.measured
    if asked_for(rows) is None:  # else, what is no worse than a quantized cell may still lose accuracy
        yield from _without_loss(rows, named)
    if any(map(ranking.few, rows)):
        return  # with few utterances, the lowest WER is chance
    yield _card(f"Lowest {rate_name(rows)}", rows, ranking.accuracy(), "most accurate", named)


def _without_loss(rows: Sequence[CellSummary], named: Mapping[str, str]) -> Iterator[Card | None]:
    harmless = [row for row in rows if row.verdict in ("better", "tied")]
    if harmless:
        yield _card("Smallest without loss of accuracy", harmless, ranking.size(), "smallest", named)
        harmless += [row for row in rows if row.is_reference]  # the baseline may be the fastest
        yield _card("Fastest without loss of accuracy", harmless, ranking.speed(harmless), "fastest", named)
    elif len(rows) > 1:
        none = f"None is shown to be as accurate as {reference(rows)}: none is better or tied."
        yield Card("Without loss of accuracy", (none,))


def _card(
    heading: str, rows: Sequence[CellSummary], metric: Metric, priority: str, named: Mapping[str, str]
) -> Card | None:
    found = ranking.rank(rows, metric)
    if found is None:
        return None
    unsure = [named[row.cell_id] for row in (*found.level, *found.unknown)]
    why = "The data cannot tell it from " if found.level else "Measured once, so not shown to differ from "
    rest = f" and {len(unsure) - 3} more" if len(unsure) > 3 else ""
    return Card(
        heading,
        tuple(trade_off(found.leader, priority).split("; ")),
        found.leader.cell_id,
        f"{why}{', '.join(unsure[:3])}{rest}." if unsure else None,
    )


def noise(rows: Sequence[CellSummary]) -> list[tuple[str, str]]:
    """What disturbed the timing of cells, and the cells concerned."""
    flagged = together(((row, flag) for row in rows for flag in row.flags), names(rows))
    return [(what, _some(list(dict.fromkeys(cells)))) for cells, what in flagged]


def _some(cells: Sequence[str]) -> str:
    rest = f" and {len(cells) - _MOST} more" if len(cells) > _MOST else ""
    return ", ".join(cells[:_MOST]) + rest


def not_measured(rows: Sequence[CellSummary]) -> list[tuple[str, list[tuple[str, str]], str]]:
    """Cells that were not measured: status, ids and names, reason."""
    named = names(rows)
    return [
        (what, [(row.cell_id, named[row.cell_id]) for row in some], reason or "no reason recorded")
        for some, what, reason in failures(rows)
    ]


def study(rows: Sequence[CellSummary], unread: Sequence[str] = ()) -> Markup:
    """The tables of the study, and published figures beside measured ones."""
    found = [section for section in document.sections(rows, unread) if section.heading != "Not measured"]
    return render("study", sections=found)


Choice = tuple[str, str, list[tuple[str, str]]]  # field name, label, (value, text) of each option


def choices(rows: Sequence[CellSummary]) -> Iterator[Choice]:
    """The selection fields, shared by the charts and the table."""
    made = groups(rows)
    if len(made) > 1:
        yield "group", "Corpus and device", [(str(index), group.label) for index, group in enumerate(made)]
    yield "library", "Library", _values(row.settings.library for row in rows)
    if verdicts := [word for word in VERDICTS if any(row.verdict == word for row in rows)]:
        yield "verdict", "Verdict", _values(verdicts)
    if len({row.status for row in rows}) > 1:
        yield "status", "Status", _values(row.status for row in rows)


def _values(words: Iterable[str]) -> list[tuple[str, str]]:
    return [(word, word) for word in dict.fromkeys(map(str, words))]


def environments(rows: Sequence[CellSummary]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The distinct environments, and the index of each cell's environment."""
    found: list[dict[str, Any]] = []
    index = {}
    for row in rows:
        if row.record.environment not in found:
            found.append(row.record.environment)
        index[row.cell_id] = found.index(row.record.environment)
    return found, index
