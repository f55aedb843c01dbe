"""The course of a grid: each cell is claimed and started as soon as it may run, and recorded when it has ended."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from quantlab.grid.attempt import Failure, Outcome
from quantlab.grid.claims import claimed
from quantlab.grid.finished import beside, finished, unwritten
from quantlab.grid.opponents import Opponents, in_turn
from quantlab.grid.plan import Cell
from quantlab.grid.process import Runner
from quantlab.grid.progress import Display
from quantlab.grid.running import Ended, Running, listen_to, resident_bytes
from quantlab.grid.schedule import Schedule, Seat
from quantlab.records import storage
from quantlab.records.schema import CellResult, Record


@dataclass
class _Started:
    """A cell in progress."""

    seat: Seat
    began_s: float
    running: Running | Ended | None = None  # None: its process is being started
    claim: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # held until its record is written
    beside: set[str] = field(default_factory=set)  # ids of the cells that ran at the same time

    @property
    def now_bytes(self) -> int:
        """Memory that it has now."""
        return resident_bytes(self.running.process.pid) if isinstance(self.running, Running) else 0


class Show(Protocol):
    """Shows and logs the record of a cell; `quiet` tells whether no other cell is being measured."""

    def __call__(self, cell: Cell, record: Record, note: str, quiet: bool) -> object: ...


class Course:
    """One run over the cells of a grid.

    Args:
        root: the folder of records.
        workers: runs the cells.
        schedule: tells which cells may run at the same time.
        opponents: what the cells are compared with while they are measured; these are measured before them.
        display: shows their progress.
        show: is called with each record that is written or found.
    """

    def __init__(
        self, root: Path, workers: Runner, schedule: Schedule, opponents: Opponents, display: Display, show: Show
    ) -> None:
        self._root, self._workers, self._schedule, self._opponents = root, workers, schedule, opponents
        self._display, self._show = display, show
        self._waiting: list[Cell] = []
        self._busy: list[Cell] = []  # measured by other processes
        self._started: list[_Started] = []
        self._before: Mapping[str, Record] = {}
        self._found: dict[str, Record] = {}

    @property
    def measuring(self) -> Cell | None:
        """Of the cells in progress, the one that began first."""
        return self._started[0].seat.cell if self._started else None

    def run(self, cells: Sequence[Cell], before: Mapping[str, Record], settled: set[str]) -> list[Record]:
        """Measure cells.

        Args:
            cells: of the grid.
            before: earlier records, by cell id.
            settled: ids of the cells whose earlier record counts.

        Returns:
            The records of the cells, in their order.
        """
        self._waiting, self._before = in_turn(cells), before
        try:
            while self._waiting or self._busy or self._started:
                self._start_all(settled)
                if self._started:
                    self._listen()
                elif self._busy:
                    self._wait_for(self._busy.pop(0))
        except BaseException:
            self._abandon()
            raise
        return [self._found[cell.id] for cell in cells]

    def _start_all(self, settled: set[str]) -> None:
        """Start every cell that may run now, in turn."""
        for cell in list(self._waiting):
            if any(item.seat.share is None for item in self._started):
                return  # a cell that is alone: nothing is done meanwhile
            if cell.id in settled:
                self._found[cell.id] = record = self._before[cell.id]
                self._display.end(cell.label, record, "recorded before")  # in MLflow it is looked up at the end
            elif self._awaits_another(cell) or (seat := self._seat(cell)) is None:
                continue
            elif not self._start(seat):
                self._busy.append(cell)
            self._waiting.remove(cell)

    def _awaits_another(self, cell: Cell) -> bool:
        """Whether a cell that this one is compared with has no record yet."""
        awaited = self._opponents.awaited(cell)
        return any(id not in self._found for id in awaited)

    def _seat(self, cell: Cell) -> Seat | None:
        if cell.refusal is not None:
            return Seat(cell, None)  # it is only recorded
        return self._schedule.admit(cell, [(item.seat, item.now_bytes) for item in self._started])

    def _wait_for(self, cell: Cell) -> None:
        """Wait until no other process measures a cell, and start it; nothing runs here."""
        self._display.say(f"{cell.label} is being measured by another process; waiting for it")
        seat = self._seat(cell)
        assert seat is not None  # as nothing runs
        self._start(seat, wait=True)

    def _start(self, seat: Seat, wait: bool = False) -> bool:
        """Claim a cell; False if another process measures it. Otherwise it then runs, or has its record."""
        cell = seat.cell
        try:
            with contextlib.ExitStack() as claim:
                if not claim.enter_context(claimed(self._root, cell.id, cell.label, wait)):
                    self._schedule.leave(seat)
                    return False
                now = self._recorded(cell)
                if now is not None and now != self._before.get(cell.id):
                    self._end(seat, now, "measured by another process")
                elif cell.refusal:
                    failure = Failure(cell.refusal.status, cell.refusal.reason)
                    self._end(seat, self._store(finished(failure, cell, 0.0), cell))
                else:
                    self._begin(seat).claim = claim.pop_all()
        except OSError as error:  # its log cannot be created
            self._started = [item for item in self._started if item.seat is not seat]
            self._end(seat, unwritten(cell, error).record)
        return True

    def _begin(self, seat: Seat) -> _Started:
        """Start the process of a claimed cell."""
        cell = seat.cell
        item = _Started(seat, time.perf_counter(), beside={other.seat.cell.id for other in self._started})
        for other in self._started:
            other.beside.add(cell.id)
        self._started.append(item)
        self._display.begin(cell.label)

        def progress(stage: str, done: int, total: int) -> None:
            self._display.update(cell.label, stage, done, total)

        log = self._root / "logs" / f"{cell.id}.log"
        known = replace(cell.identity, opponent=self._opponents.of(cell))
        item.running = self._workers.begin(cell.config, log, progress, known, seat.share)
        return item

    def _listen(self) -> None:
        """Sleep until a cell in progress tells something, and record those that have ended."""
        listen_to([item.running for item in self._started if item.running is not None])
        for item in list(self._started):
            if item.running is not None and item.running.ended:
                self._finish(item, item.running)
                self._waiting += self._busy  # they are tried again, after the others
                self._busy = []

    def _finish(self, item: _Started, running: Running | Ended) -> None:
        cell, total_s = item.seat.cell, time.perf_counter() - item.began_s
        try:
            outcome: Outcome = self._workers.finish(running)
            self._schedule.memory.saw(cell, running.peak_bytes)
            lacked_memory = isinstance(outcome, Failure) and outcome.status == "oom" and item.beside
            result = None if lacked_memory else beside(finished(outcome, cell, total_s), item.beside)
            record = None if result is None else self._store(result, cell)
        except OSError as error:  # its log cannot be read
            record = unwritten(cell, error, total_s).record
        self._started.remove(item)
        item.claim.close()
        if record is not None:
            self._end(item.seat, record)
            return
        self._schedule.leave(item.seat)
        self._schedule.isolate(cell)
        self._waiting.insert(0, cell)
        self._display.put_off(cell.label)
        self._display.say(f"{cell.label} ran out of memory beside other cells; it is measured again, alone")

    def _end(self, seat: Seat, record: Record, note: str = "") -> None:
        self._schedule.leave(seat)
        self._found[seat.cell.id] = record
        self._show(seat.cell, record, note, quiet=not self._started)

    def _abandon(self) -> None:
        """End what is in progress at an interruption; the notes of its claims stay, see `claimed`."""
        for item in self._started:
            if item.running is not None:
                item.running.kill()
            item.claim.__exit__(*sys.exc_info())

    def _store(self, result: CellResult, cell: Cell) -> Record:
        """Write a result; if that fails, the cell has failed."""
        try:
            storage.write(self._root, result)
        except OSError as error:
            result = unwritten(cell, error, result.record.stages.total_s)
            with contextlib.suppress(OSError):  # it is still a row of the table
                if self._recorded(cell) is None:  # an earlier record stays
                    storage.write(self._root, result)
        return result.record

    def _recorded(self, cell: Cell) -> Record | None:
        """The record on disk; None if missing or unreadable, which was reported at the start."""
        return next(iter(storage.readable(self._root, [cell.id], on_unreadable=lambda why: None)), None)
