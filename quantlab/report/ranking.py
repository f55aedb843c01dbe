"""Which cell is best, and which the intervals cannot tell from it.

Two cells count as told apart when their 95 % intervals do not overlap. That asks for more than a test of their
difference d would: intervals that do not overlap are further apart than 1.96 (s₁ + s₂), and s₁ + s₂ is at least the
standard deviation of d, however the two are correlated (they are: the same utterances, the same baseline).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantlab.report.parts import Mark
from quantlab.report.rows import Row
from quantlab.report.wording import Interval
from quantlab.stats.bootstrap import MIN_UNITS


@dataclass(frozen=True)
class Metric:
    """A figure of a cell, lower being better, and whether the data tell two cells apart in it."""

    value: Callable[[Row], float | None]
    apart: Callable[[Row, Row], bool | None]  # None: one of them has no interval
    counts: Callable[[Row], bool] = lambda row: True  # whether it rests on enough to be marked


@dataclass(frozen=True)
class Ranking:
    """Cells by a figure, and what stands between the one that leads and being the best."""

    order: tuple[Row, ...]  # best figure first
    level: tuple[Row, ...]  # cannot be told from the leader
    unknown: tuple[Row, ...]  # no interval on one side: measured once
    others: tuple[Row, ...]  # shown to be worse

    @property
    def leader(self) -> Row:
        """The cell with the best figure."""
        return self.order[0]

    @property
    def shown(self) -> bool:
        """Whether the data show that the leader is the best."""
        return not self.level and not self.unknown


def rank(rows: Sequence[Row], metric: Metric) -> Ranking | None:
    """None where no row has the figure. Equal figures keep the order of the rows."""
    found = [(value, row) for row in rows if (value := metric.value(row)) is not None]
    if not found:
        return None
    order = tuple(row for _, row in sorted(found, key=lambda item: item[0]))
    verdicts = [metric.apart(order[0], row) for row in order[1:]]

    def having(verdict: bool | None) -> tuple[Row, ...]:
        return tuple(row for row, one in zip(order[1:], verdicts, strict=True) if one is verdict)

    return Ranking(order, level=having(False), unknown=having(None), others=having(True))


def size() -> Metric:
    """Bytes are counted, not estimated: only equal ones are level."""
    return Metric(lambda row: row["size_bytes"], lambda a, b: a["size_bytes"] != b["size_bytes"])


def accuracy(rate: str = "wer", split: str | None = None) -> Metric:
    """Error rate of a split, or pooled over all; paired with the baseline where two cells share one.

    Args:
        rate: `wer` or `cer`.
        split: its name; None for all of them together.
    """

    def value(row: Row) -> float | None:
        part = _part(row, split)
        return None if part is None else part[rate]

    def apart(a: Row, b: Row) -> bool | None:
        if same_baseline([a, b]):
            return _apart(difference_ci95(a, rate, split), difference_ci95(b, rate, split))
        return _apart(*(None if (part := _part(row, split)) is None else part[f"{rate}_ci95"] for row in (a, b)))

    return Metric(value, apart, lambda row: not few(row))


def few(row: Row) -> bool:
    """Whether the cell heard so few utterances that no interval can be given, and no error rate called the best."""
    count: int = sum(split["utterances"] for split in row["splits"].values())
    return 0 < count < MIN_UNITS


def marks(rows: Sequence[Row], metric: Metric | None) -> dict[str, Mark]:
    """Cell id → mark, of cells that compare; none where there is nothing to compare, or too little was heard."""
    ranked = None if metric is None else rank(rows, metric)
    if metric is None or ranked is None or not all(map(metric.counts, ranked.order)):
        return {}
    if not (ranked.level or ranked.unknown or ranked.others):
        return {}
    level: dict[str, Mark] = {row["cell_id"]: "level" for row in ranked.level}
    return level | {ranked.leader["cell_id"]: "best"}


def _part(row: Row, split: str | None) -> Row | None:
    return row if split is None else row["splits"].get(split)


def difference_ci95(row: Row, rate: str, split: str | None) -> Interval | None:
    """95 % interval of the cell's rate minus its baseline's; [0, 0] for the baseline itself."""
    if is_baseline(row):
        return (0.0, 0.0)
    part = row["comparison"] if split is None else row["splits"].get(split)
    found = None if part is None else part[f"{rate}_difference_ci95"]
    return None if found is None else (found[0], found[1])


def speed(rows: Sequence[Row]) -> Metric:
    """Time against the baseline where all rows took turns with the same one, else the RTF."""
    if same_baseline(rows) and all(ratio_ci95(row) is not None for row in rows):
        return Metric(ratio, lambda a, b: _apart(ratio_ci95(a), ratio_ci95(b)))
    return Metric(rtf, lambda a, b: _apart(rtf_ci95(a), rtf_ci95(b)))


def same_baseline(rows: Sequence[Row]) -> bool:
    found = {row["baseline"] for row in rows}
    return len(found) == 1 and None not in found


def is_baseline(row: Row) -> bool:
    """Whether others are compared with it."""
    return bool(row["baseline"] == row["cell_id"])


def ratio(row: Row) -> float | None:
    """Time of the cell / time of its baseline; 1 for the baseline; None where they did not take turns."""
    if is_baseline(row):
        return 1.0
    return None if row["speed"] is None else float(row["speed"]["ratio"])


def ratio_ci95(row: Row) -> Interval | None:
    """95 % interval of `ratio`; [1, 1] for the baseline."""
    if is_baseline(row):
        return (1.0, 1.0)
    return None if row["speed"] is None else (row["speed"]["ci95"][0], row["speed"]["ci95"][1])


def rtf(row: Row) -> float | None:
    """Real-time factor over all splits: total timed generation time / total audio duration."""
    audio_s = sum(split["audio_s"] for split in row["splits"].values())
    generate_s = sum(split["generate_s"] for split in row["splits"].values())
    return generate_s / audio_s if audio_s else None


def rtf_ci95(row: Row) -> Interval | None:
    """Interval of the RTF over all splits: theirs, weighted by audio, as if all erred to the same side."""
    splits = row["splits"].values()
    if not splits or any(split["rtf_ci95"] is None for split in splits):
        return None
    audio_s = sum(split["audio_s"] for split in splits)
    low, high = (sum(split["rtf_ci95"][end] * split["audio_s"] for split in splits) / audio_s for end in (0, 1))
    return (low, high)


def _apart(a: Sequence[float] | None, b: Sequence[float] | None) -> bool | None:
    return None if a is None or b is None else a[1] < b[0] or b[1] < a[0]
