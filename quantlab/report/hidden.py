"""What a WER hides, for people: failures of each kind, utterances that became worse, keywords."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from quantlab.analysis.hidden import Failure, More
from quantlab.records.measured import KeywordFigures
from quantlab.report.against import asked_for
from quantlab.report.cell_summary import CellSummary
from quantlab.report.parts import Cell, Section, Table
from quantlab.report.results import caption
from quantlab.report.study import Group
from quantlab.report.wording import ABSENT, estimate, listed, percent, rate_name, together
from quantlab.scoring.score import Scoring
from quantlab.stats.estimate import Estimate

NAMES = {"loops": "loops", "empty": "empty outputs", "bursts": "deletion bursts", "insertions": "inserted words"}
WORDS: dict[More, str] = {"more": "more, shown", "fewer": "fewer, shown", "not shown": "no difference shown"}
_NOTES = (
    "Loops, empty outputs and deletion bursts (five or more words missing in a row, but not all): share of utterances. "
    "Inserted words: outside of loops, per 100 words of the reference. Not worse: share of utterances with no more "
    "errors than with {reference}.",
    "More, fewer: shown against {reference} by a paired test by speaker, Holm-corrected over all cells of "
    "each column; without a word there is no verdict, as there is no {reference} or there are too few utterances.",
)
_NOT_COUNTED = "{}: an older record did not count its deletion bursts; quantlab rescore --output DIR does."


def loop_share(row: CellSummary) -> Estimate | None:
    """Share of utterances that loop."""
    found = row.evidence.hidden.get("loops")
    return None if found is None else found.share


def shown(found: Failure | None) -> str:
    """`1.75 [0.80, 3.79], more, shown`: a share in percent, and its verdict."""
    if found is None:
        return ABSENT
    verdict = "" if found.verdict is None else f", {WORDS[found.verdict]}"
    return estimate(found.share, percent) + verdict


def more(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells with more failures of a kind than their reference, where that is shown: cells, what."""
    notes = [
        (row, f"more {NAMES[kind]} than {asked_for(rows) or 'the baseline'}, shown: {percent(found.share.value)} %")
        for row in rows
        for kind, found in row.evidence.hidden.items()
        if found.verdict == "more"
    ]
    yield from ((listed(cells), what) for cells, what in together(notes, called))


def keywords(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Recall and precision of the keywords of each cell, and those that no reference has."""
    for row in rows:
        if (found := row.keywords) is not None:
            scoring = Scoring.of_record(row.record)
            spoken = {word for word, (occurrences, _, _) in found.words.items() if occurrences}
            unspoken = [word for word in row.record.keywords or () if scoring.normalised(word) not in spoken]
            rest = f"; in no reference: {listed(unspoken)}" if unspoken else ""
            yield called[row.cell_id], f"recall {_share(found.recall)}, precision {_share(found.precision)}{rest}"


def keyword_facts(found: KeywordFigures) -> Iterator[tuple[str, str]]:
    """Recall and precision of all keywords, and of each that was missed or invented."""
    yield "keywords", f"recall {_share(found.recall)}, precision {_share(found.precision)}"
    for word, (spoken, written, right) in found.words.items():
        if right < spoken or right < written:
            yield f"keyword {word}", f"{right} of {spoken} right, {written - right} in other places"


def _share(value: float | None) -> str:
    return ABSENT if value is None else f"{percent(value)} %"


def section(group: Group) -> Section | None:
    """A table of all failures by device and method; None without any figure."""
    rows = [row for row in group.rows if row.evidence.hidden]
    if not rows:
        return None
    has_keywords = any(row.keywords is not None for row in rows)
    lines = tuple(
        (
            Cell(str(row.settings.device)),
            Cell(group.methods[row.cell_id]),
            Cell(shown(row.evidence.hidden.get("loops"))),
            Cell(_share(row.loops_inserted)),
            *(Cell(shown(row.evidence.hidden.get(kind))) for kind in ("empty", "bursts", "insertions")),
            Cell(ABSENT if row.evidence.no_regression is None else estimate(row.evidence.no_regression, percent)),
            *(_keyword_cells(row) if has_keywords else ()),
        )
        for row in rows
    )
    header = ("device", "method", "loops %", "of inserted words", "empty %", "deletion bursts %", "inserted words %",
              "not worse %", *(("keyword recall", "keyword precision") if has_keywords else ()))  # fmt: skip
    title = f"What the {rate_name(rows)} hides"
    align = "lllrlllr" + "rr" * has_keywords
    reference = asked_for(rows) or "the baseline"
    notes = [note.format(reference=reference.removeprefix("the ") if "no {" in note else reference) for note in _NOTES]
    if older := [group.methods[row.cell_id] for row in rows if "bursts" not in row.evidence.hidden]:
        notes.append(_NOT_COUNTED.format(listed(older)))
    return Section(title, table=Table(header, lines, caption(title, group), align), notes=tuple(notes), level=3)


def _keyword_cells(row: CellSummary) -> tuple[Cell, Cell]:
    found = row.keywords
    return Cell(_share(None if found is None else found.recall)), Cell(
        _share(None if found is None else found.precision)
    )
