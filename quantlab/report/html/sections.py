"""The parts of the page that stand still: what was measured, in short, what disturbed it, tables, environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from quantlab.report import document, ranking
from quantlab.report.cell_summary import CellSummary
from quantlab.report.html.grid import VERDICTS, badge, status
from quantlab.report.html.markup import Html, join, tag
from quantlab.report.html.summary import Group, groups, labels
from quantlab.report.parts import Section, Table
from quantlab.report.priorities import trade_off
from quantlab.report.ranking import Metric
from quantlab.report.wording import (
    corpora,
    failures,
    models,
    names,
    no_baseline,
    percent,
    rate_name,
    reference,
    sizes,
    together,
    too_few,
    utterances,
)

_MOST = 5  # names in a sentence


def title(rows: Sequence[CellSummary]) -> str:
    """What the page is about, e.g. `18 ways to run nano on demo, cpu`."""
    of = sorted(set(corpora(rows).values()))
    heard = of[0] if len(of) == 1 else f"{len(of)} corpora"
    devices = _distinct(row.settings.device for row in rows)
    return f"Quantized {_some(sorted(set(models(rows).values())))} on {heard}, {devices}"


def _distinct(values: Iterable[str]) -> str:
    return _some(sorted(set(map(str, values))))


def measured(rows: Sequence[CellSummary]) -> Html:
    """One line: how much was measured, how, when, on what; of several corpora how many there are."""
    first, last = min(row.record.created_at[:10] for row in rows), max(row.record.created_at[:10] for row in rows)
    when = first if first == last else f"{first} to {last}"
    audio_s, count = max(row.audio_s for row in rows), max(row.utterances for row in rows)
    heard = len(set(corpora([row for row in rows if row.splits]).values()))
    parts = [
        f"{heard} corpora"
        if heard > 1
        else f"{utterances(count)}, {audio_s / 60:,.1f} min of speech"
        if count
        else None,
        f"protocol {_distinct(row.settings.protocol for row in rows)}",
        *environment_words(rows),
        when,
    ]
    return tag("p", " · ".join(filter(None, parts)), class_="sub")


def environment_words(rows: Sequence[CellSummary]) -> Iterator[str]:
    """Processor and threads, in short."""
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
        yield f"{' or '.join(threads)} threads"


def chips(rows: Sequence[CellSummary]) -> Html:
    """How many cells ended how."""
    counts = Counter(row.status for row in rows)
    order = sorted(counts, key=lambda word: (word != "ok", word))
    return tag("ul", (tag("li", tag("b", counts[word]), " ", status(word)) for word in order), class_="chips")


def in_short(rows: Sequence[CellSummary]) -> Html:
    """The answer for each corpus and device in a sentence, and three cells to start from."""
    named = labels(rows)
    shares = (
        tag(
            "div",
            _verdicts(group),
            tag("div", _cards(group, named), class_="cards"),
            data_short=index,
            hidden=index > 0,
        )
        for index, group in enumerate(groups(rows))
    )  # the script shows that of the chosen group
    return join(_few(rows), shares, _notes(rows))


def _notes(rows: Sequence[CellSummary]) -> list[Html]:
    called = names(rows)
    told = (*sizes(rows, called), *no_baseline(rows, called))
    return [tag("p", tag("b", f"{cells}: "), f"{what}.", class_="note") for cells, what in told]


def _few(rows: Sequence[CellSummary]) -> list[Html]:
    """A caution for every corpus of so few utterances that nothing is shown."""
    return [tag("p", tag("b", f"{corpus}: "), f"{what}.", class_="warning") for corpus, what in too_few(rows)]


def _verdicts(group: Group) -> Html:
    counts = Counter(row.verdict for row in group.measured if row.verdict not in (None, "baseline"))
    if not counts:
        return tag(
            "p",
            "No cell could be compared with its baseline: it (quant=none) is not recorded, or there is "
            "no text to score.",
        )
    shared = next(row.comparison for row in group.measured if row.comparison is not None)
    ordered = sorted(counts, key=lambda word: VERDICTS[word][1])
    return join(
        tag(
            "p",
            f"Of {sum(counts.values())} quantized cells ({group.label}), "
            f"by {rate_name(group.rows)} against {reference(group.rows)}: ",
            [(tag("b", counts[word]), " ", badge(word), " ") for word in ordered],
            class_="lead",
        ),
        tag(
            "p",
            "Better and worse: shown by a paired test, corrected for the number of cells. Tied: not shown, and the "
            f"95 % interval of the difference ends below +{percent(shared.margin, 1)} points. "
            "Underpowered: neither; it takes more speech to tell.",
            class_="note",
        ),
    )


def _cards(group: Group, named: Mapping[str, str]) -> Iterator[Html | None]:
    rows = group.measured
    harmless = [row for row in rows if row.verdict in ("better", "tied")]
    if harmless:
        yield _card("Smallest without loss of accuracy", harmless, ranking.size(), "smallest", named)
        harmless += [row for row in rows if row.verdict == "baseline"]  # it may well be the fastest
        yield _card("Fastest without loss of accuracy", harmless, ranking.speed(harmless), "fastest", named)
    elif len(rows) > 1:
        yield tag("article", tag("h3", "Without loss of accuracy"),
                  tag("p", f"None is shown to hear as well as {reference(rows)}: none is better or tied."))  # fmt: skip
    if any(map(ranking.few, rows)):
        return  # a lowest WER of a few utterances is luck
    yield _card(f"Lowest {rate_name(rows)}", rows, ranking.accuracy(), "most accurate", named)


def _card(
    heading: str, rows: Sequence[CellSummary], metric: Metric, priority: str, named: Mapping[str, str]
) -> Html | None:
    found = ranking.rank(rows, metric)
    if found is None:
        return None
    unsure = [named[row.cell_id] for row in (*found.level, *found.unknown)]
    why = "The data cannot tell it from " if found.level else "Measured once, so not shown to differ from "
    rest = f" and {len(unsure) - 3} more" if len(unsure) > 3 else ""
    return tag(
        "article",
        tag("h3", heading),
        tag("a", named[found.leader.cell_id], href=f"#cell={found.leader.cell_id}", class_="pick"),
        (tag("p", part) for part in trade_off(found.leader, priority).split("; ")),
        tag("p", f"{why}{', '.join(unsure[:3])}{rest}.", class_="note") if unsure else None,
    )


def noise(rows: Sequence[CellSummary]) -> Html | None:
    """What disturbed the machine while cells were timed; never collapsed."""
    named = names(rows)
    lines = [
        tag("li", tag("b", what), ": ", _some(list(dict.fromkeys(cells))))
        for cells, what in together(((row, flag) for row in rows for flag in row.flags), named)
    ]
    if not lines:
        return None
    heading = tag("h2", "⚠ The machine was disturbed while cells were timed")
    return tag("section", heading, tag("ul", lines), class_="warning", id="noise")


def _some(cells: Sequence[str]) -> str:
    rest = f" and {len(cells) - _MOST} more" if len(cells) > _MOST else ""
    return ", ".join(cells[:_MOST]) + rest


def not_measured(rows: Sequence[CellSummary]) -> Html | None:
    """Cells that did not end well, with their reasons."""
    bad = list(failures(rows))
    if not bad:
        return None
    named = names(rows)
    lines = []
    for some, what, reason in bad:
        count = f"{len(some)} cells: " if len(some) > 1 else ""
        links = [tag("a", named[row.cell_id], href=f"#cell={row.cell_id}") for row in some]
        told = [(link, ", ") for link in links[:-1]], links[-1]
        lines.append(tag("li", status(what), " ", count, *told, ": ", reason or "no reason recorded"))
    return tag("section", tag("h2", "Not measured"), tag("ul", lines, class_="reasons"), id="not-measured")


def study(rows: Sequence[CellSummary], unread: Sequence[str] = ()) -> Html:
    """The study's tables, and published figures beside measured ones."""
    found = [section for section in document.sections(rows, unread) if section.heading != "Not measured"]
    return join(_section(section) for section in found)


def _section(section: Section) -> Html:
    return tag(
        "details",
        tag("summary", section.heading),
        tag("ul", (tag("li", text) for text in section.bullets)) if section.bullets else None,
        tag("div", _table(section.table), class_="box", tabindex="0", role="region", aria_label=section.table.caption)
        if section.table is not None
        else None,
        (tag("p", text, class_="note") for text in section.notes),
        open=section.heading.startswith("Published"),
        class_="inner" if section.level > 2 else None,
    )


_CLASSES = {"l": "w", "p": "w prose", "r": ""}  # by the letter of a column
_SIGNS = {"best": "★ ", "level": "≈ ", "": ""}


def _table(table: Table) -> Html:
    kinds = [_CLASSES[letter] for letter in table.align]
    head = (tag("th", text, scope="col", class_=kind) for text, kind in zip(table.header, kinds, strict=True))
    body = (
        tag("tr", (
            tag("td", _SIGNS[cell.mark], cell.text, class_=f"{kind} {cell.mark}".strip())
            for cell, kind in zip(line, kinds, strict=True)
        ))
        for line in table.lines
    )  # fmt: skip
    return tag("table", tag("thead", tag("tr", head)), tag("tbody", body))


def filters(rows: Sequence[CellSummary]) -> Html:
    """The fields that choose cells, for the charts and the table alike."""
    made = groups(rows)
    verdicts = [word for word in VERDICTS if any(row.verdict == word for row in rows)]
    return join(
        _field("text", "Find", tag("input", id="f-text", type="search", placeholder="e.g. int4", autocomplete="off")),
        _choice("group", "Corpus and device", [(str(i), group.label) for i, group in enumerate(made)])
        if len(made) > 1
        else None,
        _choice("library", "Library", _values(row.settings.library for row in rows)),
        _choice("verdict", "Verdict", [(word, word) for word in verdicts]) if verdicts else None,
        _choice("status", "Status", _values(row.status for row in rows))
        if len({row.status for row in rows}) > 1
        else None,
    )


def _values(words: Iterable[str]) -> list[tuple[str, str]]:
    return [(word, word) for word in dict.fromkeys(map(str, words))]


def _choice(name: str, label: str, options: Sequence[tuple[str, str]]) -> Html:
    every = tag("option", "all", value="")
    chosen = (tag("option", text, value=value) for value, text in options)
    return _field(name, label, tag("select", every, chosen, id=f"f-{name}"))


def _field(name: str, label: str, control: Html) -> Html:
    return tag("div", tag("label", label, for_=f"f-{name}"), control, class_="field")


def environments(rows: Sequence[CellSummary]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every environment once, and which one each cell was measured in."""
    found: list[dict[str, Any]] = []
    index = {}
    for row in rows:
        if row.record.environment not in found:
            found.append(row.record.environment)
        index[row.cell_id] = found.index(row.record.environment)
    return found, index
