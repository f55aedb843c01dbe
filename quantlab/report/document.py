"""The report as a document of headings, paragraphs and tables, shared by Markdown, LaTeX and HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantlab.report import hidden, published, streaming, study
from quantlab.report.against import asked_for
from quantlab.report.cell_summary import CellSummary, Compared
from quantlab.report.factors import ChoiceEffect, choice_effects
from quantlab.report.parts import Cell, Section, Table
from quantlab.report.priorities import by_priority
from quantlab.report.results import caption, points_field, results
from quantlab.report.study import Group
from quantlab.report.wording import (
    ABSENT,
    enumerated,
    estimate,
    failures,
    figure_name,
    listed,
    names,
    p_value,
    percent,
    points,
    problems,
    rate_name,
    three_digits,
    why_stopped,
)  # fmt: skip

_READING = (
    "WER and CER in percent over a whole split, differences in percentage points, RTF = generation time / audio time.",
    "[low, high] is a 95 % interval; an RTF without one was measured once.",
    "Bold: the best figure of the column; ≈: the data cannot tell it from the best, as the two intervals overlap. For "
    "error rates compared with the same cell, these are the intervals of the paired difference from it, which are "
    "narrower.",
)


def sections(rows: Sequence[CellSummary], unread: Sequence[str] = ()) -> list[Section]:
    """All sections in reading order. Raw utterances are read if design choices vary.

    `unread`: messages about files that could not be read and are missing from the report.
    """
    found = [part for group in study.groups(rows) for part in _group_sections(group)]
    reading = Section("How to read the tables", bullets=(*_READING, *_characters(rows), *_comparisons(rows)))
    return [reading, *found, *_side_by_side(rows), *_not_measured(rows), *_problems(rows), *_not_read(unread)]


def _characters(rows: Sequence[CellSummary]) -> Iterator[str]:
    languages = sorted({str(row.settings.language) for row in rows if row.record.error_unit == "character"})
    if languages:
        yield f"Without spaces between words ({', '.join(languages)}) errors are counted in characters: CER, no WER."


def _comparisons(rows: Sequence[CellSummary]) -> Iterator[str]:
    """How cells were compared, if any were."""
    compared = next((row.comparison for row in rows if row.comparison is not None), None)
    name = asked_for(rows)
    if compared is not None:
        yield (
            f"{rate_name(rows)} against {name or 'baseline'}: a paired bootstrap, Holm-corrected over all cells; "
            f"without a difference, tied if the interval stays below {percent(compared.margin, 1)} points, else "
            "underpowered."
        )
        if name is not None:
            yield f"Only accuracy is compared with {name}: size and time ×base are relative to the unquantized cell."
    if stopped := why_stopped(rows):
        yield stopped
    if any(row.record.speed is not None for row in rows):
        yield "Time ×base: time of the cell / time of its baseline, taking turns on the same batches."


def _group_sections(group: Group) -> Iterator[Section]:
    yield results(group)
    choices = study.priorities(group)
    if choices:
        yield by_priority(group, choices)
    if study.increases(group):
        yield wer_increase(group)
    if (part := hidden.section(group)) is not None:
        yield part
    if (part := streaming.section(group)) is not None:
        yield part
    if study.gaps(group):
        yield robustness(group)
    effects = choice_effects(group.rows)
    if effects:
        yield design_choices(group, effects)


# Figure 1 and the robustness gap


def wer_increase(group: Group) -> Section:
    """WER minus that of the baseline, or of another reference, in each split."""
    lines = tuple(
        (
            Cell(str(row.settings.device)),
            Cell(group.methods[row.cell_id]),
            *(Cell(points_field(changes[split])) for split in group.splits),
            Cell(points_field(row.difference())),
            Cell(ABSENT if row.comparison is None else p_value(row.comparison.p_holm)),
            Cell(row.verdict or ABSENT),
        )
        for row, changes in study.increases(group)
    )
    header = ("device", "method", *(f"{split}, points" for split in group.splits), "all, points", "p", "verdict")
    align = "ll" + "r" * (len(group.splits) + 2) + "l"
    title = f"{rate_name(group.rows)} increase against {asked_for(group.rows) or 'the baseline'}"
    return Section(title, table=Table(header, lines, caption(title, group), align), level=3)


def robustness(group: Group) -> Section:
    """Robustness gap: WER of the hard split minus WER of the easy one."""
    found = study.gaps(group)
    several = len({gap.hard for gap in found}) > 1
    lines = tuple(
        (
            Cell(str(gap.row.settings.device)),
            Cell(group.methods[gap.row.cell_id] + (f", {gap.hard}" if several else "")),
            Cell(points_field(gap.gap)),
            Cell(points_field(gap.change)),
        )
        for gap in found
    )
    hard = "the other split" if several else found[0].hard
    header = ("device", "method", "gap, points", "change, points")
    table = Table(header, lines, caption("Robustness gap", group), "llrr")
    rate, of = rate_name(group.rows), asked_for(group.rows) or "the baseline"
    note = f"Gap: {rate} {hard} − {rate} {found[0].easy}; change: the gap − {of}'s gap."
    return Section("Robustness gap", table=table, notes=(note,), level=3)


# Design choices


def design_choices(group: Group, effects: Sequence[ChoiceEffect]) -> Section:
    """Main effects of the levels of each choice, over pairs of cells that agree in all other choices."""
    lines = tuple(
        (
            *(Cell(text) for text in (item.device, item.library, item.choice, item.level, item.reference)),
            Cell(points_field(item.effect.mean)),
            Cell(f"{points(item.effect.smallest)} to {points(item.effect.largest)}"),
            Cell(p_value(item.p_holm)),
            Cell(str(item.effect.pairs)),
            Cell(str(len(item.alone))),
        )
        for item in effects
    )
    settings = ("device", "library", "choice", "level", "against")
    rate = rate_name(group.rows)
    header = (*settings, f"{rate}, points", "in single pairs", "p", "pairs", "alone")
    table = Table(header, lines, caption("What each design choice costs", group), "lllllrrrrr")
    notes = (
        f"Mean difference in pooled {rate} over the pairs of cells that differ in this choice alone; Holm-corrected "
        "over the lines of the table. Where single pairs differ much, the cost depends on the other choices.",
        *_unpaired_note(group, effects),
    )
    return Section("What each design choice costs", table=table, notes=notes, level=3)


def _unpaired_note(group: Group, effects: Sequence[ChoiceEffect]) -> Iterator[str]:
    ids = dict.fromkeys(cell_id for item in effects for cell_id in item.alone)
    if ids:
        named = listed([group.methods[cell_id] for cell_id in ids])
        yield f"Not counted in some lines, as no other cell differs from them in that choice alone: {named}."


# Published against measured


def _side_by_side(rows: Sequence[CellSummary]) -> Iterator[Section]:
    """One row per published figure; comparable ones come first."""
    named = names(rows)
    pairs = [(named[row.cell_id], item) for row in rows for item in row.published]
    pairs.sort(key=lambda pair: pair[1].verdict == "not comparable")
    if not pairs:
        return
    lines = tuple(
        tuple(
            Cell(text)
            for text in (
                name,
                f"{item.source}, {item.where}",
                figure_name(item),
                item.published,
                _measured(item),
                item.verdict,
                item.reason,
            )
        )
        for name, item in pairs
    )
    header = ("cell", "source", "figure", "published", "measured", "verdict", "reason")
    heading = "Published against measured"
    yield Section(heading, tuple(_sources(pairs)), Table(header, lines, heading, "lllrrlp"))


def _measured(item: Compared) -> str:
    """The measured value with its interval, rounded to one digit more than was published."""
    if item.measured is None:
        return ABSENT
    if item.metric in ("rtf", "rtfx"):
        return three_digits(item.measured.value)
    digits = len(item.published.partition(".")[2]) + 1
    return estimate(item.measured, lambda value: f"{value:.{digits}f}")


def _sources(pairs: Sequence[tuple[str, Compared]]) -> Iterator[str]:
    known = published.load().sources
    for key in dict.fromkeys(item.source for _, item in pairs):
        source = known[key]
        yield f"{key}: {source.authors}, “{source.title}”, {source.where}, {source.url}"


# What is missing


def _not_read(unread: Sequence[str]) -> Iterator[Section]:
    if unread:
        lines = tuple((Cell(why),) for why in unread)
        yield Section("Not read", table=Table(("file, and why it could not be read",), lines, "Not read", "p"))


def _not_measured(rows: Sequence[CellSummary]) -> Iterator[Section]:
    bad = list(failures(rows))
    if bad:
        named = names(rows)
        lines = tuple(
            (Cell(enumerated([named[row.cell_id] for row in some])), Cell(status), Cell(reason or ABSENT))
            for some, status, reason in bad
        )
        yield Section("Not measured", table=Table(("cell", "status", "reason"), lines, "Not measured", "llp"))


def _problems(rows: Sequence[CellSummary]) -> Iterator[Section]:
    found = tuple(f"{which}: {corpus}: {what}." for which, corpus, what in problems(rows))
    if found:
        yield Section("Utterances with problems", bullets=found)
