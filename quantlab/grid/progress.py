"""Progress display of a grid: one line per cell, with a bar for the utterances."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from quantlab.records.schema import Problem, Record
from quantlab.util import reasons
from quantlab.util.console import console as plain_console
from quantlab.util.counted import counted
from quantlab.util.errors import shortened
from quantlab.util.languages import RATES
from quantlab.util.printable import printable
from quantlab.util.progress import minutes
from quantlab.util.redact import redact

MARKS = {"ok": ("✓", "green"), "unsupported": ("–", "yellow")}  # character, style
FAILED = ("✗", "red")
HEARTBEAT_S = 60.0  # between progress lines of a cell without a terminal


@dataclass
class _Line:
    """What is shown of a running cell."""

    place: str  # its number among all cells, as printed
    began_s: float
    announced: bool
    task: TaskID
    stage: str = ""
    stage_s: float = 0.0  # start of the stage
    said_s: float = 0.0  # time of its last line


class Display:
    """Progress lines on stderr, which keeps stdout for the table.

    A cell keeps the number that it got when it began, so that lines of cells that run side by side can be told apart.
    The bars are drawn when a cell reports, not by a thread, so that the parent sleeps while a cell is timed.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or plain_console(stderr=True)
        self.total = total
        self.width = len(str(total))
        self._numbers: dict[str, int] = {}  # of the cells that have begun or ended, by label
        self._running: dict[str, _Line] = {}  # by label
        self._took_s: list[float] = []  # durations of the cells measured now
        self._first_with: dict[tuple[str, ...], str] = {}  # reason → the first cell with it
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            console=self.console,
            auto_refresh=False,
            transient=True,
        )

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            for line in self._running.values():
                self._bar.remove_task(line.task)
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that concerns no cell."""
        self.console.print(printable(redact(text)), soft_wrap=True)

    def begin(self, label: str) -> None:
        """Start a cell for `update`; without a terminal a line announces it."""
        line = self._new_line(label, self._number(label), announced=True)
        if not self.console.is_terminal:
            self._print(line, f"{label} started")
        self.update(label, "start", 0, 0)

    def update(self, label: str, stage: str, done: int, total: int) -> None:
        """Show progress of a running cell, or of something else, which then has a line of its own.

        Args:
            label: the cell as given to `begin`, or what else goes on.
            stage: what is done now; with `done` and `total` as `quantlab.measurement.cell.Progress`.
            done: of the stage, 0 if unknown.
            total: of the stage, 0 if unknown.
        """
        line = self._running.get(label) or self._new_line(label, len(self._numbers) + 1, announced=False)
        now_s = time.monotonic()
        if stage != line.stage:
            line.stage, line.stage_s = stage, now_s
        if not self.console.is_terminal and now_s - line.said_s >= HEARTBEAT_S:
            of = f" {done} of {total}" if total else ""
            self._print(line, f"{label} · {stage}{of}{self._remaining(line, done, total, now_s)}")
        if self.console.is_terminal:
            text = printable(f"{line.place} {label} · {stage}")
            self._bar.update(line.task, description=text, completed=done, total=total or None, visible=True)
            self._bar.refresh()

    def _new_line(self, label: str, number: int, announced: bool) -> _Line:
        now_s = time.monotonic()
        task = self._bar.add_task("", total=None, visible=False)
        return self._running.setdefault(label, _Line(self._place(number), now_s, announced, task, said_s=now_s))

    def _number(self, label: str) -> int:
        return self._numbers.setdefault(label, len(self._numbers) + 1)

    def _place(self, number: int) -> str:
        return f"{number:>{self.width}}/{self.total}"

    def _print(self, line: _Line, text: str) -> None:
        line.said_s = time.monotonic()
        self.say(f"{line.place}   {text}")

    def _remaining(self, line: _Line, done: int, total: int, now_s: float) -> str:
        """Estimated remaining time of the current stage and of the cells after those that run, as far as known."""
        parts = []
        if done and total:
            parts.append(f"{minutes((now_s - line.stage_s) * (total - done) / done)} left")
        after = self.total - len(self._numbers)
        if after and self._took_s:
            side_by_side = max(1, sum(other.announced for other in self._running.values()))
            mean_s = sum(self._took_s) / len(self._took_s)
            parts.append(f"{minutes(after * mean_s / side_by_side)} more for the other cells")
        return f", about {', '.join(parts)}" if parts else ""

    def put_off(self, label: str) -> None:
        """A running cell has ended without a result, and begins again later, under its number."""
        self._take_off(label)

    def _take_off(self, label: str) -> _Line | None:
        line = self._running.pop(label, None)
        if line is not None:
            self._bar.remove_task(line.task)
            if self.console.is_terminal:
                self._bar.refresh()
        return line

    def end(self, label: str, record: Record, note: str = "") -> None:
        """Print the result line of a cell."""
        line = self._take_off(label)
        if line is not None:
            self._took_s.append(time.monotonic() - line.began_s)
        mark = MARKS.get(record.status, FAILED)
        self.console.print(
            Text.assemble(
                f"{self._place(self._number(label))} ",
                mark,
                f" {printable(label)} ",
                (printable(note or self._same_reason(label, record) or _outcome(record)), "dim"),
            ),
            soft_wrap=True,
        )

    def _same_reason(self, label: str, record: Record) -> str:
        """A reference to the first cell with the same reason."""
        if record.status == "ok":
            return ""
        first = self._first_with.setdefault(reasons.key(record.status, record.reason or "", record.setting), label)
        return f"{record.status}, for the same reason as {first}" if first != label else ""


def _outcome(record: Record) -> str:
    if record.status != "ok":
        return f"{record.status}: {record.reason}"
    wer = [
        f"{RATES[record.error_unit]} {name} {100 * split.wer:.1f} %"
        for name, split in record.splits.items()
        if split.wer is not None
    ]
    if record.adaptive is not None and record.stopped_early:
        looks = record.adaptive
        wer.append(f"{looks.stopped_by} after {looks.used:,} of {counted(looks.available, 'utterance')}")
    total = f"{record.stages.total_s:.1f} s" if record.stages.total_s is not None else ""
    return " · ".join([*wer, total, *_problems(record.problems)])


def _problems(problems: Sequence[Problem]) -> Iterator[str]:
    for which, measured in (("not measured", False), ("doubtful", True)):
        some = [item for item in problems if item.measured is measured]
        if some:
            yield f"{which}: {len(some)}, e.g. {shortened(some[0].utterance)}: {some[0].detail}"
