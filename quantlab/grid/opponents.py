"""What the cells of a grid are compared with while they are measured (`protocol.looks`): their baselines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from quantlab.analysis.looks import Opponent
from quantlab.analysis.pairs import Scores, family, find_baselines, is_baseline, read_scores
from quantlab.config.schema import NO_QUANTIZATION, RunConfig
from quantlab.grid.plan import Cell
from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.records.several import Stored
from quantlab.scoring.score import Scoring
from quantlab.stats.sequential import Design
from quantlab.util.errors import ConfigError

Say = Callable[[str], None]


def in_turn(cells: Sequence[Cell]) -> list[Cell]:
    """The cells in the order in which they are measured: baselines first if others are compared with them meanwhile."""
    return sorted(cells, key=lambda cell: may_stop(cell.config))


def may_stop(config: RunConfig) -> bool:
    """Whether the cell is compared with its baseline while it is measured."""
    return config.protocol.looks is not None and config.quant.library != NO_QUANTIZATION.library


class Opponents:
    """Finds the baseline of each cell, and reads its counts once."""

    def __init__(self, root: Path, cells: Sequence[Cell], compared: int | None, say: Say) -> None:
        """Take in the cells of a grid.

        Args:
            root: folder of the records.
            cells: those that are measured here.
            compared: number of cells in the whole grid that may stop early; None: of `cells`.
            say: prints a line on a cell that has no baseline.
        """
        self._root, self._say = root, say
        self.compared = compared or sum(cell.refusal is None and may_stop(cell.config) for cell in cells)
        judged = [cell for cell in cells if _needs_baseline(cell)]
        baselines = [cell for cell in cells if judged and cell.config.quant.name == NO_QUANTIZATION.name]
        self._own = {cell.id for cell in baselines}
        families = {cell.id: family(as_record(cell)) for cell in (*judged, *baselines)}
        self._awaited = {
            cell.id: {other for other in self._own if families[other] == families[cell.id]} for cell in judged
        }
        self._known: dict[str, Scores | None] = {}

    def awaited(self, cell: Cell) -> Collection[str]:
        """Ids of the cells of this grid that must have a record before this one is measured."""
        return self._awaited.get(cell.id, ())

    def of(self, cell: Cell) -> Opponent | None:
        """The baseline of a cell; None if the cell is measured to the end, which is said if a baseline is missing."""
        if not _needs_baseline(cell):
            return None
        baseline = self._baseline(cell)
        scores = None if baseline is None else self._scores(baseline)
        if baseline is None or scores is None:
            self._say(f"{cell.label} is measured to the end: its baseline (quant=none, all else equal) is not recorded")
            return None
        design = Design(cell.config.stats.margin / 100, self.compared, stops=cell.config.protocol.stops)
        return Opponent(baseline.cell_id, scores, design)

    def _scores(self, baseline: Record) -> Scores | None:
        if baseline.cell_id not in self._known:
            found = read_scores([Stored(self._root, baseline)], self._say)
            self._known[baseline.cell_id] = found.get(baseline.cell_id)
        return self._known[baseline.cell_id]

    def check(self, cells: Sequence[Cell]) -> None:
        """Check that the baselines of cells are recorded before the cells are measured elsewhere.

        Raises:
            ConfigError: one is not.
        """
        for cell in cells:
            if _needs_baseline(cell) and self._baseline(cell) is None:
                raise ConfigError(
                    f"protocol.looks={cell.config.protocol.looks}: {cell.label} is compared with its baseline while "
                    "it is measured, so that must be recorded first: submit quant=none, and the rest when it is done"
                )

    def _baseline(self, cell: Cell) -> Record | None:
        now = storage.readable(self._root, self._own, on_unreadable=lambda why: None)
        baselines = {record.cell_id: record for record in (*self._elsewhere, *now)}
        return baselines.get(find_baselines([as_record(cell), *baselines.values()]).get(cell.id, ""))

    @cached_property
    def _elsewhere(self) -> list[Record]:
        """Baselines of earlier grids."""
        others = [cell_id for cell_id in storage.recorded(self._root) if cell_id not in self._own]
        return list(filter(is_baseline, storage.readable(self._root, others, on_unreadable=lambda why: None)))


def _needs_baseline(cell: Cell) -> bool:
    return cell.refusal is None and may_stop(cell.config) and cell.config.model.weights != "random"


def as_record(cell: Cell) -> Record:
    """A planned cell as a record, to find its baseline by."""
    scoring = Scoring.of_language(cell.config.dataset.language)
    return Record(
        cell_id=cell.id,
        status="failed",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=cell.config.model_dump(mode="json"),
        fingerprints=cell.fingerprints,
        environment={"versions": cell.versions},
        normaliser=scoring.normaliser,
        error_unit=scoring.unit,
    )
