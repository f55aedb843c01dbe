"""Choice of the cell to deploy from the findings on all cells, based only on differences that the data show."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from quantlab.records.cell_id import identity
from quantlab.records.labels import short
from quantlab.records.schema import to_json
from quantlab.records.several import Roots, Stored, stored
from quantlab.report import ranking
from quantlab.report.cell_summary import CellSummary
from quantlab.report.ranking import Ranking
from quantlab.report.recommend.judge import STANDINGS, Candidate, Finding, Limits, Standing, judge, judge_counted
from quantlab.report.summaries import compared
from quantlab.report.wording import corpora, estimate, loops, models, names, noise, ratio
from quantlab.util.console import warn
from quantlab.util.counted import counted

_STOPPING = ("name", "looks", "stops")  # keys of the protocol that decide how many utterances are used


class NotRecordedError(LookupError):
    """No requested cell is recorded."""


class SeveralCorporaError(ValueError):
    """Cells of several corpora, whose error rates and speeds are not comparable."""


@dataclass(frozen=True)
class Recommendation:
    """The cell to deploy, the reason, and the finding on every other cell."""

    limits: Limits
    best: Candidate | None
    because: str  # one sentence; if nothing qualifies, the nearest miss
    claim: str | None  # the property that the data show: fastest, smallest; None if nothing qualifies
    qualifying: tuple[Candidate, ...]  # fastest first, as measured
    rejected: tuple[Finding, ...]  # nearest to the limits first
    underpowered: tuple[Finding, ...]
    undecided: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


def recommend(
    source: Roots | Sequence[CellSummary], limits: Limits | None = None, output_dir: str | None = None
) -> Recommendation:
    """Choose the cell to deploy within limits.

    Args:
        source: one or several folders of records (`output_dir` of a grid), or cells with their evidence.
        limits: None limits only the WER increase, to 0.5 points.
        output_dir: output folder in suggested commands; None uses each cell's own folder.

    Raises:
        NotRecordedError: no cell of that device, model, dataset or split is recorded.
        SeveralCorporaError: the cells are of several corpora, and `limits.dataset` chooses none of them.
        ConfigError: two folders hold different records of one cell.
    """
    limits = limits or Limits()
    cells = [] if isinstance(source, str | Path) else [item for item in source if isinstance(item, CellSummary)]
    roots = source if isinstance(source, str | Path) else [item for item in source if isinstance(item, str | Path)]
    return _recommend(_selected(cells, limits) if cells else _compared(roots, limits), limits, output_dir)


def _compared(roots: Roots, limits: Limits) -> list[CellSummary]:
    """The requested cells, with evidence only if it can matter, since computing it takes far longer than reading."""
    plain = _selected([CellSummary(record, root=root) for root, record in stored(roots, None, warn)], limits)
    wanted = [
        Stored(item.root, item.record)
        for item in plain
        if item.settings.quant == "none" or judge_counted(item, "", limits) is None
    ]
    known = {item.cell_id: item for item in compared(roots, wanted)}
    return [known.get(item.cell_id, item) for item in plain]


def _selected(found: Sequence[CellSummary], limits: Limits) -> list[CellSummary]:
    found = _chosen_by(found, "device", limits.device, lambda item: (item.settings.device,))
    named = models(found)
    found = _chosen_by(found, "model", limits.model, lambda item: _called(item, "checkpoint", named))
    if not found:
        raise NotRecordedError("no cells are recorded")
    found = _one_corpus(found, limits.dataset)
    splits = sorted({split for item in found for split in item.splits})
    if limits.split is not None and limits.split not in splits:
        raise NotRecordedError(f"no cell with split {limits.split!r} is recorded{_hint(splits)}")
    return list(found)


def _chosen_by(
    found: Sequence[CellSummary], axis: str, wanted: str | None, called: Callable[[CellSummary], Sequence[str]]
) -> Sequence[CellSummary]:
    """Cells of the wanted name; all if None."""
    chosen = [item for item in found if wanted is None or wanted in called(item)]
    if not chosen and wanted is not None:
        there = sorted({str(called(item)[0]) for item in found})
        raise NotRecordedError(f"no cell with {axis} {wanted!r} is recorded{_hint(there)}")
    return chosen


def _called(item: CellSummary, part: Literal["checkpoint", "corpus"], named: Mapping[str, str]) -> tuple[str, ...]:
    """Accepted names of a checkpoint or corpus: unique name, name, file name, fingerprint."""
    of = item.checkpoint if part == "checkpoint" else item.corpus
    plain = item.model if part == "checkpoint" else item.dataset
    return named[item.cell_id], plain, of.name, str(of.fingerprint), short(of.fingerprint)


def _one_corpus(found: Sequence[CellSummary], wanted: str | None) -> Sequence[CellSummary]:
    """Cells of one corpus; a cell that failed before its corpus was read is matched by the corpus name."""
    named = corpora(found)
    found = _chosen_by(found, "dataset", wanted, lambda item: _called(item, "corpus", named))
    keys = {item.cell_id: item.named.corpus_key for item in found}
    by_corpus = {keys[item.cell_id]: item for item in found if item.ok}
    if len(by_corpus) > 1:
        listed = "; ".join(sorted(_corpus_name(item, named) for item in by_corpus.values()))
        raise SeveralCorporaError(f"the cells are of several corpora ({listed}): choose one with --dataset")
    one = next(iter(by_corpus), None)
    return [item for item in found if one in (None, keys[item.cell_id]) or item.corpus.fingerprint is None]


def _corpus_name(item: CellSummary, named: Mapping[str, str]) -> str:
    """Name of a corpus, with its fingerprint if the name is ambiguous."""
    text, mark = named[item.cell_id], short(item.corpus.fingerprint)
    return text if text == item.dataset or mark in text else f"{text}, {mark}"


def _hint(there: Sequence[str]) -> str:
    return f"; recorded: {'; '.join(there)}" if there else ""


def _recommend(found: Sequence[CellSummary], limits: Limits, output_dir: str | None) -> Recommendation:
    whole, notes = _longest(found)
    kept, more = _best_timed(whole)
    notes += more
    called = names(kept)
    notes += tuple(f"{cells}: {what}" for cells, what in (*loops(kept, called), *noise(kept, called)))
    notes += tuple(_rtf_once(kept, limits))
    findings = [judge(item, called[item.cell_id], limits, output_dir or str(item.root)) for item in kept]
    of: dict[Standing, tuple[Finding, ...]] = {
        standing: tuple(sorted((one for one in findings if one.standing == standing), key=_nearness))
        for standing in STANDINGS
    }
    good = {finding.cell.cell_id: finding.cell for finding in of["qualifies"]}
    blank = Recommendation(
        limits=limits, best=None, because=_nearest_miss(of), claim=None, qualifying=(), rejected=of["falls out"],
        underpowered=of["underpowered"], undecided=of["undecided"], notes=notes,
    )  # fmt: skip
    return _chosen(blank, [item for item in kept if item.cell_id in good], good)


def _longest(found: Sequence[CellSummary]) -> tuple[list[CellSummary], tuple[str, ...]]:
    """Of records that differ only in where they may stop, keep that with the most utterances, of equals the last."""
    measured = sorted((item for item in found if item.ok), key=lambda item: (item.utterances, item.record.created_at))
    best = set({_same(item, _STOPPING): item.cell_id for item in measured}.values())
    kept = [item for item in found if not item.ok or item.cell_id in best]
    dropped = len(found) - len(kept)
    note = f"Left out: {counted(dropped, 'record')} of cells also measured with another protocol.looks or stats.margin"
    return kept, (note,) if dropped else ()


def _best_timed(found: Sequence[CellSummary]) -> tuple[list[CellSummary], tuple[str, ...]]:
    """Of a cell measured under several protocols, keep only records that were timed in turns with the baseline."""
    careful = {item.settings.protocol for item in found if item.record.speed is not None}
    timed = {_same(item) for item in found if item.settings.protocol in careful and item.ok}
    kept = [item for item in found if item.settings.protocol in careful or _same(item) not in timed]
    dropped = len(found) - len(kept)
    note = f"Left out: {counted(dropped, 'record')} of cells that were also timed in turns with their baseline"
    return kept, (note,) if dropped else ()


def _rtf_once(kept: Sequence[CellSummary], limits: Limits) -> Iterator[str]:
    once = [item for item in kept if item.rtf is not None and item.rtf.ci95 is None and not item.flags]
    if once and limits.max_rtf is not None:
        yield (
            f"The RTF of {counted(len(once), 'cell')} was measured once, so that it is compared with "
            f"{limits.max_rtf:g} without an interval; protocol=careful gives one"
        )


def _same(item: CellSummary, keys: Collection[str] | None = None) -> str:
    """Key that is equal for cells that differ at most in these keys of their protocol; None: in any."""
    config = identity(item.record.config)
    protocol = {key: value for key, value in config.pop("protocol").items() if keys is not None and key not in keys}
    config.pop("stats", None)  # the margin at which a cell may stop
    return to_json([config, protocol, item.record.fingerprints, item.record.environment.get("versions")])


def _nearness(finding: Finding) -> tuple[bool, int, float]:
    return math.isinf(finding.over), len(finding.reasons), finding.over


def _nearest_miss(of: dict[Standing, tuple[Finding, ...]]) -> str:
    """The nearest cell that does not qualify; those that break no known limit come first."""
    for nearest in (*of["underpowered"], *of["undecided"], *of["falls out"]):
        return f"nothing qualifies; nearest is {nearest.cell.name}: {'; '.join(nearest.reasons)}"
    return "nothing qualifies"


def _chosen(blank: Recommendation, good: Sequence[CellSummary], cells: dict[str, Candidate]) -> Recommendation:
    found = ranking.rank(good, ranking.speed(good))
    if found is None:
        return blank
    group = [found.leader, *found.level, *found.unknown]
    best = min(group, key=lambda item: item.size_bytes or 0)  # of equal sizes, the faster
    claim = "only" if len(good) == 1 else "fastest" if found.shown else "smallest"
    return replace(
        blank,
        best=cells[best.cell_id],
        claim=claim,
        because=_reason(found, cells, claim, len(good)),
        qualifying=tuple(cells[item.cell_id] for item in found.order),
    )


def _reason(found: Ranking, cells: dict[str, Candidate], claim: str, count: int) -> str:
    if claim == "only":
        if found.leader.is_baseline:
            return "no quantized cell is shown to stay within the limits"
        return "the only cell that qualifies"
    if claim == "fastest":
        return f"the fastest of the {count} that qualify: the intervals of all other times lie apart from its own"
    if not found.level and not found.others:
        how = "protocol=careful" if found.leader.record.bundle is None else "measure.py --rounds 8"
        return (
            f"the smallest of the {count} that qualify: speed was measured once, without an interval, so which is "
            f"fastest is not shown; {how} would show it"
        )
    group = [cells[item.cell_id] for item in (found.leader, *found.level, *found.unknown)]
    listed = ", ".join(f"{cell.name}{_speed(cell)}" for cell in group[:4])
    more = f" and {len(group) - 4} more" if len(group) > 4 else ""
    return f"the smallest of {len(group)} that cannot be told apart in speed: {listed}{more}"


def _speed(cell: Candidate) -> str:
    return "" if cell.speed is None else f" {estimate(cell.speed, ratio, '×')}"
