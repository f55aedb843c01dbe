"""Running of a grid: measure all cells without a record, then print the table."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from quantlab import tracking
from quantlab.config.schema import RunConfig
from quantlab.export.missing import export_missing
from quantlab.grid.course import Course
from quantlab.grid.memory import Memory
from quantlab.grid.opponents import Opponents
from quantlab.grid.plan import Cell, plan
from quantlab.grid.process import InProcess, Runner, Workers
from quantlab.grid.progress import Display
from quantlab.grid.root import open_root
from quantlab.grid.schedule import Schedule
from quantlab.grid.shares import Shares
from quantlab.records import storage
from quantlab.records.cell_id import ID_LENGTH
from quantlab.records.schema import Record, to_json
from quantlab.report.cell_summary import CellSummary
from quantlab.report.plots import figures
from quantlab.report.summaries import Summaries, of_records
from quantlab.report.table import show, text
from quantlab.util.console import to_stdout
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError
from quantlab.util.machine import affinity, cuda_names
from quantlab.util.memory import without_gc

OK, FAILED, INTERRUPTED = 0, 1, 130  # exit codes
SETTLED = ("ok", "unsupported")  # a record with another status is measured again on resume


def run_grid(configs: Sequence[RunConfig]) -> int:
    """Run every cell of a grid that has no settled record yet, then print the table of all cells.

    Args:
        configs: the cells, in the order of the table; they share output_dir, tracking, resume and isolate.

    Returns:
        The exit code: 0, 1 if a cell failed, 130 if it was interrupted.

    Raises:
        ConfigError: a library, a path or a split does not exist, or output_dir cannot be written.
    """
    cells = _ready(configs)
    with Display(len(cells)) as display:
        grid = Grid(Path(configs[0].output_dir), configs[0], display)
        try:
            summaries, kept = grid.whole(cells, configs[0].export.dir)
        except KeyboardInterrupt:
            return _interrupted(cells, grid.root, display)
    code = conclude(summaries, grid)
    return code if kept else FAILED


def run(overrides: Sequence[str]) -> Summaries:
    """Measure a grid as `quantlab -m` does, and write its records; recorded cells are read instead.

    Args:
        overrides: keys as on the command line, e.g. `["quant=none,hqq_int4", "dataset.limit=20"]`; `output_dir=…` is
            the folder for the records, `mlruns` by default.

    Returns:
        One summary per cell, in the order of the grid and compared with its baseline, including failed and unsupported
        cells (`status`, `reason`); `.to_dataframe()` has one row per cell. Error rates and shares are fractions, `_s`
        seconds, `_bytes` bytes.

    Raises:
        ConfigError: a name or a value is wrong, a path does not exist, or output_dir cannot be written; then nothing
            is measured.
    """
    from quantlab.config.compose import read  # imports Hydra, which a composed grid does not need

    sweep = read(["-m", *overrides])
    if sweep.launcher is not None:
        raise ConfigError("hydra/launcher: run() measures on this machine; for SLURM jobs: quantlab -m …")
    cells = _ready(sweep.configs)
    with Display(len(cells)) as display:
        grid = Grid(Path(sweep.configs[0].output_dir), sweep.configs[0], display)
        return grid.whole(cells, sweep.configs[0].export.dir)[0]


@without_gc()
def _ready(configs: Sequence[RunConfig]) -> list[Cell]:
    """Plan the cells of a grid and create its folders."""
    cells = plan(configs)
    open_root(Path(configs[0].output_dir), configs[0].export.dir)
    return cells


class Grid:
    """Shared state of the cells of a grid: folder, workers, MLflow and display."""

    def __init__(self, root: Path, config: RunConfig, display: Display) -> None:
        self.root = root
        self.display = display
        self.resume = config.resume
        self.tracking = config.tracking
        self.background = tracking.BackgroundLogger(root, config.tracking, display.say)
        self.workers: Runner = Workers() if config.isolate else InProcess()
        gpus = cuda_names() if config.jobs != 1 else ()
        self.schedule = Schedule(config.jobs, Shares(affinity(), gpus), Memory())
        self._course: Course | None = None
        self._is_warm = False
        self._unlogged: list[str] = []

    @property
    def measuring(self) -> Cell | None:
        """The cell that is being measured, of several the one that began first."""
        return self._course.measuring if self._course else None

    def whole(self, cells: Sequence[Cell], exported_to: str | None) -> tuple[Summaries, bool]:
        """Summaries of all cells, and whether all requested exports exist."""
        self.background.begin(sweep_id(cells), [cell.id for cell in cells])
        records = self.run(cells)
        found = self.summarise(records)
        return found, export_missing(self.root, records, exported_to)

    def run(self, cells: Sequence[Cell], compared: int | None = None) -> list[Record]:
        """The records of all cells, in order: measured now, before, or by another process meanwhile.

        Args:
            cells: in the order of the table.
            compared: see `Opponents`.
        """
        readable = storage.readable(
            self.root, [cell.id for cell in cells], lambda why: self.display.say(f"measured again: {why}")
        )
        before = {record.cell_id: record for record in readable}
        done = {id for id, record in before.items() if self.resume and record.status in SETTLED}
        if new := [cell for cell in cells if cell.refusal is None and cell.id not in done]:
            self._warm_up()
            self._extract([cell for cell in new if not self.schedule.is_alone(cell)])
        opponents = Opponents(self.root, cells, compared, self.display.say)
        self._course = Course(self.root, self.workers, self.schedule, opponents, self.display, self.show)
        with nullcontext() if new else without_gc():
            return self._course.run(cells, before, done)

    def show(self, cell: Cell, record: Record, note: str, quiet: bool = True) -> Record:
        """Print the cell's line and log its run in MLflow; if other cells are being timed, once none is (`quiet`)."""
        self.display.end(cell.label, record, note)
        self._unlogged.append(cell.id)
        if quiet:
            self.background.log(*self._unlogged)
            self._unlogged.clear()
        return record

    @without_gc()
    def summarise(self, records: Sequence[Record]) -> Summaries:
        """Summaries of the whole sweep, which is also logged as one run in MLflow."""
        found = of_records(self.root, records, self.display.say)
        self.background.finish(records, lambda ids: (text(found), figures(found)))
        return found

    def _warm_up(self) -> None:
        """Import torch (in the server) and MLflow (here) in parallel, once, before anything is timed."""
        if self._is_warm:
            return
        self._is_warm = True
        self.display.say("importing torch and transformers, once for all cells")
        with ThreadPoolExecutor(1) as pool:
            prepared = pool.submit(self.background.prepare)
            self.workers.start()
            prepared.result()

    def _extract(self, cells: Sequence[Cell]) -> None:
        """Extract the features of cells that will run side by side, each once and with all cores."""
        sources = {_features_of(cell.config): cell for cell in cells}
        if sources:
            self.display.say(f"extracting features with {counted(len(affinity()), 'core')}, once for all cells")
        for cell in sources.values():
            self.workers.extract(cell.config, self.root / "logs" / f"{cell.id}.log", cell.identity)


def _features_of(config: RunConfig) -> str:
    """The settings that determine which features a cell needs."""
    return to_json([part and part.model_dump() for part in (config.model, config.dataset, config.calibration_dataset)])


def sweep_id(cells: Sequence[Cell]) -> str:
    """Id of a set of cells, so that running a command again adds no second summary."""
    return hashlib.sha256("\n".join(sorted(cell.id for cell in cells)).encode()).hexdigest()[:ID_LENGTH]


@without_gc()
def conclude(found: Sequence[CellSummary], grid: Grid) -> int:
    """Print the table of a grid and where its records are.

    Returns:
        The exit code: 0, 1 if a cell failed.
    """
    display = grid.display
    written = True
    try:
        with to_stdout():
            show(found)
    except OSError as error:  # the cells are recorded anyway
        written = False
        display.say(f"the table cannot be written: {error.strerror}; quantlab report prints it again")
    display.say(f"records  {storage.cells_dir(grid.root)}  (quantlab report --root {grid.root})")
    if command := tracking.ui_command(grid.root, grid.tracking):
        display.say(f"MLflow   {command}")
    for name, link in grid.background.links.items():
        display.say(f"         {link}  ({name})")
    return OK if written and all(item.status in SETTLED for item in found) else FAILED


def _interrupted(cells: Sequence[Cell], root: Path, display: Display) -> int:
    done = len(storage.readable(root, [cell.id for cell in cells], on_unreadable=lambda why: None))
    what = f"{done} of {counted(len(cells), 'cell')} recorded in {root}"
    display.say(f"interrupted: {what}; run the same command for the rest")
    return INTERRUPTED
