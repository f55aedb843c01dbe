"""Running of a grid: measure all cells without a record, then print the table."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from quantlab import tracking
from quantlab.config.schema import RunConfig
from quantlab.export import place
from quantlab.export.missing import export_missing
from quantlab.grid import claims
from quantlab.grid.claims import claimed
from quantlab.grid.opponents import Opponents, in_turn
from quantlab.grid.plan import Cell, plan
from quantlab.grid.process import Failure, Runner, Workers, attempt
from quantlab.grid.progress import Display
from quantlab.records import storage
from quantlab.records.cell_id import ID_LENGTH
from quantlab.records.schema import CellResult, Record, Stages
from quantlab.report.cell_summary import CellSummary
from quantlab.report.plots import figures
from quantlab.report.summaries import Summaries, of_records
from quantlab.report.table import show, text
from quantlab.util.console import to_stdout
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError
from quantlab.util.files import cache_dir, why_no_folder
from quantlab.util.redact import redact

OK, FAILED, INTERRUPTED = 0, 1, 130  # exit codes
_CACHE = "set QUANTLAB_CACHE to a folder that can be written to"
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


def _ready(configs: Sequence[RunConfig]) -> list[Cell]:
    """Plan the cells of a grid and create its folders."""
    cells = plan(configs)
    open_root(Path(configs[0].output_dir), configs[0].export.dir)
    return cells


def open_root(root: Path, exported_to: str | None) -> None:
    """Create the folders of a grid, its exports and the cache, and remove leftovers of killed grids.

    Raises:
        ConfigError: a folder cannot be created or written.
    """
    if exported_to is not None:
        place.make(Path(exported_to).expanduser())
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the cache {cache} cannot be created: {error.strerror}; {_CACHE}") from None
    try:
        storage.cells_dir(root).mkdir(parents=True, exist_ok=True)
        storage.clean_leftovers(root)
        claims.clean(root)
    except OSError as error:
        raise ConfigError(f"output_dir={root} cannot be written: {error.strerror}; name another folder") from None


def check_root(root: Path, exported_to: str | None) -> None:
    """Check that `open_root` can create its folders, without creating any.

    Raises:
        ConfigError: a folder cannot be created or written.
    """
    folders = {f"output_dir={root}": storage.cells_dir(root), f"the cache {cache_dir()}": cache_dir()}
    if exported_to is not None:
        folders[f"export.dir={exported_to}"] = Path(exported_to).expanduser()
    for what, folder in folders.items():
        if why := why_no_folder(folder):
            way_out = _CACHE if what.startswith("the cache") else "name another folder"
            raise ConfigError(f"{what}: {why}; {way_out}")


class Grid:
    """Shared state of the cells of a grid: folder, workers, MLflow and display."""

    def __init__(self, root: Path, config: RunConfig, display: Display) -> None:
        self.root = root
        self.display = display
        self.resume = config.resume
        self.tracking = config.tracking
        self.background = tracking.BackgroundLogger(root, config.tracking, display.say)
        self.workers: Runner | None = Workers() if config.isolate else None
        self.measuring: Cell | None = None

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
        if any(cell.refusal is None and cell.id not in done for cell in cells):
            self._warm_start()
        self._opponents = Opponents(self.root, cells, compared, self.display.say)
        found: dict[str, Record] = {}
        busy: list[Cell] = []
        for cell in in_turn(cells):
            if cell.id in done:
                found[cell.id] = before[cell.id]
                self.display.end(cell.label, before[cell.id], "recorded before")  # in MLflow it is looked up at the end
                continue
            if record := self._if_free(cell, before.get(cell.id)):
                found[cell.id] = record
            else:
                busy.append(cell)
        for cell in busy:
            self.display.say(f"{cell.label} is being measured by another process; waiting for it")
            record = self._if_free(cell, before.get(cell.id), wait=True)
            assert record is not None
            found[cell.id] = record
        return [found[cell.id] for cell in cells]

    def _if_free(self, cell: Cell, before: Record | None, wait: bool = False) -> Record | None:
        """Measure a cell; None if another process is measuring it."""
        try:
            with claimed(self.root, cell.id, cell.label, wait) as mine:
                return self._measure(cell, before) if mine else None
        except OSError as error:  # its log cannot be created
            return self.show(cell, _unwritten(cell, error).record, "")

    def _measure(self, cell: Cell, before: Record | None) -> Record:
        """Measure a claimed cell, unless another process has done so since `before` was read."""
        now = self._recorded(cell)
        if now is not None and now != before:
            return self.show(cell, now, "measured by another process")
        self.measuring = cell
        self.display.begin(cell.label)
        record = self._run(cell)
        self.measuring = None
        return self.show(cell, record, "")

    def show(self, cell: Cell, record: Record, note: str) -> Record:
        """Print the cell's line and log its run in MLflow."""
        self.display.end(cell.label, record, note)
        self.background.log(cell.id)
        return record

    def summarise(self, records: Sequence[Record]) -> Summaries:
        """Summaries of the whole sweep, which is also logged as one run in MLflow."""
        found = of_records(self.root, records, self.display.say)
        self.background.finish(records, lambda ids: (text(found), figures(found)))
        return found

    def _warm_start(self) -> None:
        """Import torch (in the server) and MLflow (here) in parallel, before anything is timed."""
        self.display.say("importing torch and transformers, once for all cells")
        with ThreadPoolExecutor(1) as pool:
            prepared = pool.submit(self.background.prepare)
            if self.workers:
                self.workers.start()
            prepared.result()

    def _run(self, cell: Cell) -> Record:
        start = time.perf_counter()
        known = replace(cell.identity, opponent=self._opponents.of(cell))
        if cell.refusal:
            outcome: CellResult | Failure = Failure(cell.refusal.status, cell.refusal.reason)
        elif self.workers:
            log = self.root / "logs" / f"{cell.id}.log"
            outcome = self.workers.run(cell.config, log, self.display.update, known)
        else:
            outcome = attempt(cell.config, self.display.update, known)
        return self._store(_finished(outcome, cell, time.perf_counter() - start), cell)

    def _store(self, result: CellResult, cell: Cell) -> Record:
        """Write a result; if that fails, the cell has failed."""
        try:
            storage.write(self.root, result)
        except OSError as error:
            result = _unwritten(cell, error, result.record.stages.total_s)
            with contextlib.suppress(OSError):  # it is still a row of the table
                if self._recorded(cell) is None:  # an earlier record stays
                    storage.write(self.root, result)
        return result.record

    def _recorded(self, cell: Cell) -> Record | None:
        """The record on disk; None if missing or unreadable, which was reported at the start."""
        return next(iter(storage.readable(self.root, [cell.id], on_unreadable=lambda why: None)), None)


def _finished(outcome: CellResult | Failure, cell: Cell, total_s: float) -> CellResult:
    """A result or failure in the form to be stored."""
    if isinstance(outcome, CellResult):
        stages = outcome.record.stages.model_copy(update={"total_s": total_s})
        return outcome.model_copy(update={"record": outcome.record.model_copy(update={"stages": stages})})
    return CellResult(
        record=Record(
            cell_id=cell.id,
            status=outcome.status,
            reason=outcome.reason and redact(outcome.reason),  # it is printed too
            traceback=outcome.traceback and redact(outcome.traceback),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            config=cell.config.model_dump(mode="json"),
            fingerprints=cell.fingerprints,
            environment={"versions": cell.versions},
            receipt=outcome.receipt,
            stages=Stages(total_s=total_s),
        )
    )


def _unwritten(cell: Cell, error: OSError, total_s: float | None = None) -> CellResult:
    return _finished(Failure("failed", f"its record could not be written: {error}"), cell, total_s or 0.0)


def sweep_id(cells: Sequence[Cell]) -> str:
    """Id of a set of cells, so that running a command again adds no second summary."""
    return hashlib.sha256("\n".join(sorted(cell.id for cell in cells)).encode()).hexdigest()[:ID_LENGTH]


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
