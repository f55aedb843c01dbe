"""Contents of the study's tables and figures, computed from rows; other modules format them.

The study is Söhler, Irigoyen, Kirkedal (arXiv 2511.08093). Its Tables 2 and 3 are a `Group`, Figure 1 is `increases`,
Table 4 is `priorities`; its discussion of noisy speech uses the robustness gap, `gaps`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from quantlab.report import ranking, wording
from quantlab.report.cell_summary import CellSummary
from quantlab.report.ranking import Ranking
from quantlab.report.wording import methods
from quantlab.stats.estimate import Estimate


@dataclass(frozen=True)
class Group:
    """Cells of one model, corpus and protocol, which share a table."""

    model: str
    weights: str
    dataset: str
    protocol: str
    rows: tuple[CellSummary, ...]  # measured cells, by device, baseline first
    splits: tuple[str, ...]
    methods: dict[str, str]  # cell id → quantizer, with further settings where needed to be unique within a device

    @property
    def title(self) -> str:
        weights = "" if self.weights == "pretrained" else f" ({self.weights} weights)"
        return f"{self.model}{weights} on {self.dataset}, protocol {self.protocol}"

    def by_device(self) -> dict[str, list[CellSummary]]:
        """The rows of each device."""
        found: dict[str, list[CellSummary]] = {}
        for row in self.rows:
            found.setdefault(str(row.settings.device), []).append(row)
        return found


@dataclass(frozen=True)
class Gap:
    """Robustness gap of a cell: WER difference of two splits, and its change against the baseline."""

    row: CellSummary
    easy: str
    hard: str
    gap: Estimate  # WER hard − WER easy
    change: Estimate | None  # gap minus the baseline's gap


@dataclass(frozen=True)
class Priority:
    """The best cell of a group on one device by one figure, as far as the data show."""

    name: str  # fastest, most accurate, smallest
    device: str
    ranking: Ranking


def groups(rows: Sequence[CellSummary]) -> list[Group]:
    """Measured cells, grouped by what a comparison must share (checkpoint, corpus, protocol), in their order."""
    good = [row for row in rows if row.ok]
    models, corpora = wording.models(good), wording.corpora(good)
    found: dict[Hashable, list[CellSummary]] = {}
    for row in good:
        key = row.named.checkpoint_key, row.named.corpus_key, row.settings.protocol
        found.setdefault(key, []).append(row)
    return [
        Group(
            models[some[0].cell_id],
            str(some[0].settings.weights),
            corpora[some[0].cell_id],
            str(some[0].settings.protocol),
            tuple(some),
            _splits(some),
            methods(some),
        )
        for some in found.values()
    ]


def _splits(rows: Sequence[CellSummary]) -> tuple[str, ...]:
    return rated_splits(rows) or tuple(dict.fromkeys(split for row in rows for split in row.splits))


def rated_splits(rows: Sequence[CellSummary]) -> tuple[str, ...]:
    """The splits that have an error rate in some row: audio without speech has none."""
    found = ((name, split.result.ref_words) for row in rows for name, split in row.splits.items())
    return tuple(dict.fromkeys(name for name, words in found if words != 0))


def increases(group: Group) -> list[tuple[CellSummary, dict[str, Estimate | None]]]:
    """Figure 1: WER increase by split of every cell that has a baseline."""
    found = [(row, {split: row.difference("wer", split) for split in group.splits}) for row in group.rows]
    return [(row, changes) for row, changes in found if any(change is not None for change in changes.values())]


def gaps(group: Group) -> list[Gap]:
    """Robustness gaps of every cell between the easy split (`clean`, else the first) and each other split."""
    if len(group.splits) < 2:
        return []
    easy = "clean" if "clean" in group.splits else group.splits[0]
    hard = [split for split in group.splits if split != easy]
    found = [_gap(row, easy, split) for row in group.rows for split in hard]
    return [gap for gap in found if gap is not None]


def _gap(row: CellSummary, easy: str, hard: str) -> Gap | None:
    (a, change_a), (b, change_b) = ((row.rate("wer", one), row.difference("wer", one)) for one in (easy, hard))
    if a is None or b is None:
        return None
    change = None if change_a is None or change_b is None else change_b.minus(change_a)
    return Gap(row, easy, hard, b.minus(a), change)


def priorities(group: Group) -> list[Priority]:
    """Table 4: the fastest, most accurate and smallest cell of each device with two or more cells."""
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
