"""A whole grid: run the cells that are not recorded yet, show what came out, tell how to go on."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from quantlab import storage, tracking
from quantlab.claims import claimed
from quantlab.config import RunConfig
from quantlab.identity import ID_LENGTH, library_versions
from quantlab.isolate import Failure, Workers, attempt
from quantlab.plan import Cell, plan
from quantlab.progress import Display
from quantlab.record import CellResult, Record, Stages
from quantlab.redact import redact
from quantlab.report.plots import figures
from quantlab.report.rows import rows_of
from quantlab.report.table import show, text

OK, FAILED, INTERRUPTED = 0, 1, 130  # exit codes
SETTLED = ("ok", "unsupported")  # a record with another status is measured again on resume


def run_grid(configs: Sequence[RunConfig]) -> int:
    """Run every cell of a grid that has no good record yet, then print the table of all of them.

    Args:
        configs: the cells, in the order of the table; they share output_dir, tracking, resume and isolate.

    Returns:
        The exit code: 0, 1 if a cell failed, 130 if it was interrupted.
    """
    root = Path(configs[0].output_dir)
    storage.clean_leftovers(root)
    cells = plan(configs)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is a Ctrl-C
    with Display(len(cells)) as display:
        grid = Grid(root, configs[0], display)
        try:
            sweep = sweep_id(cells)
            records = grid.run(cells, sweep)
            grid.summarise(records, sweep)
        except KeyboardInterrupt:
            return _interrupted(cells, root, display)
    _summarise(records, grid, display)
    return FAILED if any(item.status not in SETTLED for item in records) else OK


class Grid:
    """What the cells of one grid share: the folder, the workers, MLflow and the display."""

    def __init__(self, root: Path, config: RunConfig, display: Display) -> None:
        self.root = root
        self.display = display
        self.resume = config.resume
        self.tracking = config.tracking
        self.outbox = tracking.Outbox(root, config.tracking, display.say)
        self.workers = Workers() if config.isolate else None

    def run(self, cells: Sequence[Cell], sweep: str) -> list[Record]:
        """Every cell's record, in the order of `cells`: measured now, before, or by another process meanwhile.

        Args:
            cells: what to measure.
            sweep: the id under which MLflow finds the cells of one command.
        """
        self.outbox.begin(sweep, [cell.id for cell in cells])
        readable = storage.readable(
            self.root, [cell.id for cell in cells], lambda why: self.display.say(f"measured again: {why}")
        )
        before = {record.cell_id: record for record in readable}
        done = {id for id, record in before.items() if self.resume and record.status in SETTLED}
        if any(cell.refusal is None and cell.id not in done for cell in cells):
            self._warm_start()
        found: dict[str, Record] = {}
        busy: list[Cell] = []
        for cell in cells:
            if cell.id in done:
                found[cell.id] = self._show(cell, before[cell.id], "recorded before", sweep)
                continue
            with claimed(self.root, cell.id) as mine:
                if mine:
                    found[cell.id] = self._measure(cell, before.get(cell.id), sweep)
                else:
                    busy.append(cell)
        for cell in busy:
            self.display.say(f"{cell.config.label} is being measured by another process; waiting for it")
            with claimed(self.root, cell.id, wait=True):
                found[cell.id] = self._measure(cell, before.get(cell.id), sweep)
        return [found[cell.id] for cell in cells]

    def _measure(self, cell: Cell, before: Record | None, sweep: str) -> Record:
        """Measure a cell that is ours, unless another process has done so since `before` was read."""
        for now in storage.readable(self.root, [cell.id], on_unreadable=lambda why: None):  # said before
            if now != before:
                return self._show(cell, now, "measured by another process", sweep)
        self.display.begin(cell.config.label)
        return self._show(cell, self._run(cell), "", sweep)

    def _show(self, cell: Cell, record: Record, note: str, sweep: str) -> Record:
        """The cell's line, and its run in MLflow."""
        self.display.end(cell.config.label, record, note)
        self.outbox.log(cell.id, sweep)
        return record

    def summarise(self, records: Sequence[Record], sweep: str) -> None:
        """Show the whole sweep as one run of MLflow."""
        ids = [item.cell_id for item in records]
        compared = rows_of(self.root, records, on_unreadable=self.display.say)
        self.outbox.summarise(sweep, ids, text(compared), partial(figures, compared))

    def _warm_start(self) -> None:
        """Imports of torch (in the server) and of MLflow (here) side by side, before anything is timed."""
        self.display.say("importing torch and transformers, once for all cells")
        with ThreadPoolExecutor(1) as pool:
            prepared = pool.submit(self.outbox.prepare)
            if self.workers:
                self.workers.start()
            prepared.result()

    def _run(self, cell: Cell) -> Record:
        start = time.perf_counter()
        if cell.refusal:
            outcome: CellResult | Failure = Failure(cell.refusal.status, cell.refusal.reason)
        elif self.workers:
            log = self.root / "logs" / f"{cell.id}.log"
            outcome = self.workers.run(cell.config, log, self.display.update)
        else:
            outcome = attempt(cell.config, self.display.update)
        return self._store(_finished(outcome, cell, time.perf_counter() - start), cell)

    def _store(self, result: CellResult, cell: Cell) -> Record:
        """On disk, or failed: a cell without a record was not measured."""
        try:
            storage.write(self.root, result)
        except OSError as error:
            failure = Failure("failed", f"its record could not be written: {error}")
            result = _finished(failure, cell, result.record.stages.total_s or 0.0)
            with contextlib.suppress(OSError):  # a row of the table all the same
                storage.write(self.root, result)
        return result.record


def _finished(outcome: CellResult | Failure, cell: Cell, total_s: float) -> CellResult:
    """A result or a failure as it goes on disk."""
    if isinstance(outcome, CellResult):
        stages = outcome.record.stages.model_copy(update={"total_s": total_s})
        return outcome.model_copy(update={"record": outcome.record.model_copy(update={"stages": stages})})
    return CellResult(
        record=Record(
            cell_id=cell.id,
            status=outcome.status,
            reason=redact(outcome.reason),  # it is printed too
            traceback=redact(outcome.traceback),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            config=cell.config.model_dump(mode="json"),
            fingerprints=cell.fingerprints,
            environment={"versions": library_versions(cell.config)},
            receipt=outcome.receipt,
            stages=Stages(total_s=total_s),
        )
    )


def sweep_id(cells: Sequence[Cell]) -> str:
    """The same cells are the same sweep, so that running a command again adds no second summary."""
    return hashlib.sha256("\n".join(sorted(cell.id for cell in cells)).encode()).hexdigest()[:ID_LENGTH]


def _summarise(records: Sequence[Record], grid: Grid, display: Display) -> None:
    show(rows_of(grid.root, records, on_unreadable=lambda message: None))  # said before
    display.say(f"records  {storage.cells_dir(grid.root)}  (python -m quantlab.report --root {grid.root})")
    if command := tracking.ui_command(grid.root, grid.tracking):
        display.say(f"MLflow   {command}")
    for name, link in grid.outbox.links().items():
        display.say(f"         {link}  ({name})")


def _interrupted(cells: Sequence[Cell], root: Path, display: Display) -> int:
    done = sum(storage.read(root, cell.id) is not None for cell in cells)
    display.say(f"interrupted: {done} of {len(cells)} cells are recorded under {root}; the same command does the rest")
    return INTERRUPTED
