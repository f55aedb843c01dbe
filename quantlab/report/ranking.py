"""Ranking of cells: the best one, and those that the intervals cannot distinguish from it.

Two cells count as different if their 95 % intervals do not overlap. That is stricter than a test of their difference d:
values whose intervals do not overlap are further apart than 1.96 (s₁ + s₂), and s₁ + s₂ is at least the standard
deviation of d for any correlation of the two (they are correlated: same utterances, same baseline).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantlab.report.cell_summary import CellSummary, Rate
from quantlab.report.parts import Mark
from quantlab.stats.bootstrap import MIN_UNITS
from quantlab.stats.estimate import Estimate

Figure = Callable[[CellSummary], Estimate | None]


@dataclass(frozen=True)
class Metric:
    """A figure to rank cells by (lower is better), with a test whether two cells differ in it."""

    figure: Figure
    paired: Figure | None = None  # its difference to the reference, used for cells that share one
    counts: Callable[[CellSummary], bool] = lambda row: True  # whether there are enough data to mark it

    def apart(self, a: CellSummary, b: CellSummary) -> bool | None:
        """Whether two cells differ; None if one of them has no interval."""
        figure = self.paired if self.paired and _shared([a.reference, b.reference]) else self.figure
        one, other = figure(a), figure(b)
        return None if one is None or other is None else one.apart(other)


@dataclass(frozen=True)
class Ranking:
    """Cells ranked by a figure, grouped by their relation to the leader."""

    order: tuple[CellSummary, ...]  # best figure first
    level: tuple[CellSummary, ...]  # not distinguishable from the leader
    unknown: tuple[CellSummary, ...]  # this cell or the leader has no interval (measured once)
    others: tuple[CellSummary, ...]  # shown to be worse

    @property
    def leader(self) -> CellSummary:
        """The cell with the best figure."""
        return self.order[0]

    @property
    def shown(self) -> bool:
        """Whether the data show that the leader is the best."""
        return not self.level and not self.unknown


def rank(rows: Sequence[CellSummary], metric: Metric) -> Ranking | None:
    """Rank rows by a metric; equal figures keep the order of the rows. None if no row has the figure."""
    found = [(figure.value, row) for row in rows if (figure := metric.figure(row)) is not None]
    if not found:
        return None
    order = tuple(row for _, row in sorted(found, key=lambda item: item[0]))
    verdicts = [metric.apart(order[0], row) for row in order[1:]]

    def having(verdict: bool | None) -> tuple[CellSummary, ...]:
        return tuple(row for row, one in zip(order[1:], verdicts, strict=True) if one is verdict)

    return Ranking(order, level=having(False), unknown=having(None), others=having(True))


def size() -> Metric:
    """Ranking by size; sizes are exact, so only equal ones are level."""
    return Metric(size_bytes)


def size_bytes(row: CellSummary) -> Estimate | None:
    """Size as an exact estimate."""
    size = row.size_bytes
    return None if size is None else Estimate(size, (size, size))


def accuracy(rate: Rate = "wer", split: str | None = None) -> Metric:
    """Ranking by error rate of a split, or pooled (None); by paired differences for cells that share a reference.

    Cells that stopped early are left out, as their rates are those of a part of the corpus.
    """
    return Metric(
        lambda row: None if row.stopped_early else row.rate(rate, split),
        lambda row: row.increase(rate, split),
        counts=lambda row: not few(row),
    )


def few(row: CellSummary) -> bool:
    """Whether the cell has too few utterances for an interval, so that no error rate is called the best."""
    return 0 < row.utterances < MIN_UNITS


def marks(rows: Sequence[CellSummary], metric: Metric | None) -> dict[str, Mark]:
    """Cell id → mark, for comparable cells.

    Empty if there is nothing to compare, too few utterances, or a figure that was measured once, without an interval.
    """
    ranked = None if metric is None else rank(rows, metric)
    if metric is not None and metric.paired and any(row.stopped_early for row in rows):
        return {}  # one that is not ranked may be the best
    if metric is None or ranked is None or not all(map(metric.counts, ranked.order)):
        return {}
    if ranked.unknown or not (ranked.level or ranked.others):
        return {}
    level: dict[str, Mark] = {row.cell_id: "level" for row in ranked.level}
    return level | {ranked.leader.cell_id: "best"}


def speed(rows: Sequence[CellSummary]) -> Metric:
    """Ranking by time ratio if all rows were timed in turns with the same baseline, else by RTF."""
    timed = _shared([row.baseline for row in rows]) and all(row.ratio is not None for row in rows)
    return Metric(time_ratio if timed else rtf)


def speed_by(figure: Figure) -> Callable[[Sequence[CellSummary]], Metric | None]:
    """The ranking by speed, only for the column of the figure that it uses."""

    def metric(rows: Sequence[CellSummary]) -> Metric | None:
        found = speed(rows)
        return found if found.figure is figure else None

    return metric


def rtf(row: CellSummary) -> Estimate | None:
    """RTF over all splits."""
    return row.rtf


def time_ratio(row: CellSummary) -> Estimate | None:
    """Time relative to the baseline."""
    return row.ratio


def _shared(ids: Sequence[str | None]) -> bool:
    """Whether all cells have the same baseline or reference."""
    return len(set(ids)) == 1 and None not in ids
