"""What the tables and figures of the study show, computed from rows; how it is written is another module's matter.

The study is Söhler, Irigoyen, Kirkedal (arXiv 2511.08093): its Tables 2 and 3 are a `Group`, Figure 1 is `increases`,
Table 4 is `priorities`, and the robustness gap is what its discussion of noisy speech rests on.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from quantlab.report import ranking, wording
from quantlab.report.ranking import Ranking
from quantlab.report.rows import Row, cell
from quantlab.report.wording import Interval, methods


@dataclass(frozen=True)
class Group:
    """Cells of one model on one corpus under one protocol: one table."""

    model: str
    weights: str
    dataset: str
    protocol: str
    rows: tuple[Row, ...]  # those that ended well, by device, baseline first
    splits: tuple[str, ...]
    methods: dict[str, str]  # cell id → quantizer, with whatever else tells the cells of a device apart

    @property
    def title(self) -> str:
        weights = "" if self.weights == "pretrained" else f" ({self.weights} weights)"
        return f"{self.model}{weights} on {self.dataset}, protocol {self.protocol}"

    def by_device(self) -> dict[str, list[Row]]:
        """The same rows, apart for each device."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(str(row["device"]), []).append(row)
        return found


@dataclass(frozen=True)
class Change:
    """A difference of error rates as a fraction, and its 95 % interval; None where there is none."""

    value: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class Gap:
    """How much harder one split is than another for a cell, and how much more so than for its baseline."""

    row: Row
    easy: str
    hard: str
    gap: Change  # WER hard − WER easy
    change: Change  # gap − the baseline's gap


@dataclass(frozen=True)
class Priority:
    """The best cell of a group on one device by one figure, as far as the data show it."""

    name: str  # fastest, most accurate, smallest
    device: str
    ranking: Ranking


def groups(rows: Sequence[Row]) -> list[Group]:
    """The cells that ended well, by what a comparison must share (checkpoint, corpus, protocol); in their order."""
    good = [row for row in rows if row["status"] == "ok"]
    models, corpora = wording.models(good), wording.corpora(good)
    found: dict[Hashable, list[Row]] = {}
    for row in good:
        own = cell(row)
        found.setdefault((own.checkpoint_key, own.corpus_key, row["protocol"]), []).append(row)
    return [
        Group(
            models[some[0]["cell_id"]],
            str(some[0]["weights"]),
            corpora[some[0]["cell_id"]],
            str(some[0]["protocol"]),
            tuple(some),
            _splits(some),
            methods(some),
        )
        for some in found.values()
    ]


def _splits(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(split for row in rows for split in row["splits"]))


def increase(row: Row, split: str | None = None, rate: str = "wer") -> Change:
    """The cell's error rate minus its baseline's, on a split or pooled (None)."""
    part = row["comparison"] if split is None else row["splits"].get(split)
    if part is None or part[f"{rate}_difference"] is None:
        return Change(None, None)
    return Change(part[f"{rate}_difference"], ranking.difference_ci95(row, rate, split))


def increases(group: Group) -> list[tuple[Row, dict[str, Change]]]:
    """Figure 1: the WER increase of every cell that has a baseline, by split."""
    found = [(row, {split: increase(row, split) for split in group.splits}) for row in group.rows]
    return [(row, changes) for row, changes in found if any(change.value is not None for change in changes.values())]


def gaps(group: Group) -> list[Gap]:
    """The robustness gap of every cell, between the easy split (`clean`, else the first) and each other one."""
    if len(group.splits) < 2:
        return []
    easy = "clean" if "clean" in group.splits else group.splits[0]
    hard = [split for split in group.splits if split != easy]
    found = [_gap(row, easy, split) for row in group.rows for split in hard]
    return [gap for gap in found if gap is not None]


def _gap(row: Row, easy: str, hard: str) -> Gap | None:
    a, b = row["splits"].get(easy), row["splits"].get(hard)
    if a is None or b is None or a["wer"] is None or b["wer"] is None:
        return None
    gap = minus(Change(b["wer"], b["wer_ci95"]), Change(a["wer"], a["wer_ci95"]))
    return Gap(row, easy, hard, gap, minus(increase(row, hard), increase(row, easy)))


def minus(a: Change, b: Change) -> Change:
    """The difference a − b of estimates from different utterances.

    The interval is Zou and Donner's (MOVER; Statistics in Medicine 27:1693, 2008), for independent estimates; the
    errors of two splits that share speakers lean the same way, which makes it too wide, never too narrow.
    """
    if a.value is None or b.value is None:
        return Change(None, None)
    value = a.value - b.value
    if a.ci95 is None or b.ci95 is None:
        return Change(value, None)
    low = value - math.hypot(a.value - a.ci95[0], b.ci95[1] - b.value)
    high = value + math.hypot(a.ci95[1] - a.value, b.value - b.ci95[0])
    return Change(value, (low, high))


def priorities(group: Group) -> list[Priority]:
    """Table 4: the fastest, the most accurate and the smallest cell of each device with two cells or more."""
    found = []
    for device, rows in group.by_device().items():
        metrics = {
            "fastest": ranking.speed(rows),
            "most accurate": ranking.accuracy(),
            "smallest": ranking.size(),
        }
        ranked = {name: ranking.rank(rows, metric) for name, metric in metrics.items()}
        found += [Priority(name, device, one) for name, one in ranked.items() if one is not None and len(rows) > 1]
    return found
