"""Search for the smallest cell within limits: cells are measured in order of size, until no other can be smaller.

Each cell is compared with its baseline while it is measured, and stops once it is beyond the limit of WER. Others are
measured on the whole corpus, since a loop that makes all the difference may come last. A cell whose codes alone take
more bytes than a cell that qualifies, or than is allowed, is not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from quantlab.config.compose import read
from quantlab.grid.least import least_bytes
from quantlab.grid.opponents import Opponents, may_stop
from quantlab.grid.plan import Cell, plan
from quantlab.grid.progress import Display
from quantlab.grid.root import open_root
from quantlab.grid.run import Grid, sweep_id
from quantlab.records.schema import Record
from quantlab.report.recommend import Limits, Recommendation, recommend
from quantlab.report.summaries import of_records
from quantlab.report.wording import MB, megabytes
from quantlab.util.errors import ConfigError

_SET_HERE = ("protocol", "protocol.looks", "protocol.stops", "stats.margin")
NOT_SMALLER, TOO_LARGE, NO_BASELINE = "not smaller than the one chosen", "larger than", "their baseline has no figures"


def search(keys: Sequence[str], limits: Limits) -> Recommendation:
    """Measure cells of a grid until it is known which one is the smallest within the limits.

    Args:
        keys: the grid, as on the command line; cells with a record are not measured again.
        limits: of size, memory, RTF and WER.

    Raises:
        ConfigError: a key is wrong or set here, a baseline is missing, or the grid is for SLURM.
    """
    cells = _planned(keys, limits)
    config = cells[0].config
    root = Path(config.output_dir)
    with Display(len(cells)) as display:
        opponents = Opponents(root, cells, None, display.say)
        _check_baselines(cells, opponents)
        open_root(root, config.export.dir)
        return _Search(cells, limits, Grid(root, config, display), opponents).run()


def _planned(keys: Sequence[str], limits: Limits) -> list[Cell]:
    if limits.max_wer_increase == 0:
        raise ConfigError("--max-wer-increase 0: no number of utterances shows that nothing is lost; allow e.g. 0.1")
    if own := [key for key in keys if key.split("=")[0].lstrip("+") in _SET_HERE]:
        raise ConfigError(f"{own[0]}: recommend --measure sets this key itself: leave it out")
    stop = ("protocol=adaptive", "protocol.stops=beyond", f"stats.margin={limits.max_wer_increase:g}")
    sweep = read(["-m", *keys, *stop])
    if sweep.launcher is not None:
        raise ConfigError("hydra/launcher: recommend --measure measures on this machine: leave it out")
    if not sweep.configs:
        raise ConfigError(f"the sweep has no cell: a glob or range is empty, in {' '.join(keys)}")
    if sweep.configs[0].jobs != 1:
        raise ConfigError(f"jobs={sweep.configs[0].jobs}: each cell depends on those before it: set jobs=1")
    return plan(sweep.configs)


class _Search:
    """Cells that are measured one after another, and what they have shown.

    Args:
        cells: the grid, planned.
        limits: see `search`.
        grid: measures them.
        opponents: tells what they are compared with.
    """

    def __init__(self, cells: Sequence[Cell], limits: Limits, grid: Grid, opponents: Opponents) -> None:
        self._cells, self._limits, self._grid, self._opponents = cells, limits, grid, opponents
        self._least = {cell.id: 0 if cell.refusal else least_bytes(cell.config) for cell in cells}
        self._records: dict[str, Record] = {}
        self._left_out: dict[str, list[Cell]] = {}  # by reason

    def run(self) -> Recommendation:
        """Measure, and choose."""
        self._grid.background.begin(sweep_id(self._cells), [cell.id for cell in self._cells])
        smallest: int | None = None
        for cell in sorted(self._cells, key=lambda cell: self._least[cell.id]):
            if cell.id not in self._records and self._measure(cell, smallest):
                best = recommend(of_records(self._grid.root, self._measured()), self._limits).best
                smallest = best.size_bytes if best else None
        if not self._records:
            nothing = "nothing qualifies, and nothing was measured: see below"
            return Recommendation(self._limits, None, nothing, None, (), (), (), (), tuple(self._notes()))
        found = recommend(self._grid.summarise(self._measured()), self._limits)
        return replace(found, notes=(*found.notes, *self._notes()))

    def _measure(self, cell: Cell, smallest: int | None) -> bool:
        """Measure a cell unless it cannot be chosen, which is noted; whether there is a new record."""
        allowed, least = self._limits.max_size_mb, self._least[cell.id]
        if smallest is not None and least >= smallest:
            return self._leave_out(cell, NOT_SMALLER)
        if allowed is not None and least > allowed * MB:
            return self._leave_out(cell, f"{TOO_LARGE} {allowed:g} MB")
        awaited = self._opponents.awaited(cell)
        self._run([other for other in self._cells if other.id in awaited and other.id not in self._records])
        if any(self._records[id].status != "ok" for id in awaited):
            return self._leave_out(cell, NO_BASELINE)
        self._run([cell])
        return True

    def _run(self, cells: Sequence[Cell]) -> None:
        records = self._grid.run(cells, self._opponents.compared) if cells else ()
        self._records |= {record.cell_id: record for record in records}

    def _leave_out(self, cell: Cell, reason: str) -> bool:
        self._left_out.setdefault(reason, []).append(cell)
        return False

    def _measured(self) -> list[Record]:
        """The records so far, in the order of the grid."""
        return [self._records[cell.id] for cell in self._cells if cell.id in self._records]

    def _notes(self) -> Iterator[str]:
        for reason, cells in self._left_out.items():
            listed = ", ".join(f"{cell.label} ({megabytes(self._least[cell.id])} MB or more)" for cell in cells)
            yield f"Not measured, as {reason}: {listed}"


def _check_baselines(cells: Sequence[Cell], opponents: Opponents) -> None:
    for cell in cells:
        if cell.config.model.weights == "random":
            raise ConfigError(f"{cell.label}: random weights have no WER, which is to be limited: choose a checkpoint")
        if may_stop(cell.config) and not cell.refusal and not opponents.awaited(cell):
            raise ConfigError(
                f"{cell.label} has no baseline among the cells, with which its WER is compared: add quant=none"
            )
