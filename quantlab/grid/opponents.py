"""What the cells of a grid are compared with while they are measured (`protocol.looks`): their baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from quantlab.analysis.looks import Opponent
from quantlab.analysis.pairs import find_baselines, is_baseline, read_scores
from quantlab.config.schema import NO_QUANTIZATION, RunConfig
from quantlab.grid.plan import Cell
from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.records.several import Stored
from quantlab.scoring.score import Scoring
from quantlab.stats.sequential import Design

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
        self._compared = compared or sum(cell.refusal is None and may_stop(cell.config) for cell in cells)
        self._own = {cell.id for cell in cells if is_baseline(as_record(cell))}
        self._known: dict[str, Opponent | None] = {}

    def of(self, cell: Cell) -> Opponent | None:
        """The baseline of a cell; None if the cell is measured to the end, which is said if a baseline is missing."""
        if cell.refusal is not None or not may_stop(cell.config) or cell.config.model.weights == "random":
            return None
        now = storage.readable(self._root, self._own, on_unreadable=lambda why: None)
        baselines = {record.cell_id: record for record in (*self._elsewhere, *now)}
        id = find_baselines([as_record(cell), *baselines.values()]).get(cell.id)
        if id is not None and id not in self._known:
            scores = read_scores([Stored(self._root, baselines[id])], self._say).get(id)
            design = Design(cell.config.stats.margin / 100, self._compared)
            self._known[id] = Opponent(id, scores, design) if scores else None
        found = None if id is None else self._known[id]
        if found is None:
            self._say(f"{cell.label} is measured to the end: its baseline (quant=none, all else equal) is not recorded")
        return found

    @cached_property
    def _elsewhere(self) -> list[Record]:
        """Baselines of earlier grids."""
        others = [cell_id for cell_id in storage.recorded(self._root) if cell_id not in self._own]
        return list(filter(is_baseline, storage.readable(self._root, others, on_unreadable=lambda why: None)))


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
