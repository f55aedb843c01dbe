"""Progress display of a grid: one line per cell, with a bar for the utterances."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
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


class Display:
    """Progress lines on stderr, which keeps stdout for the table.

    The bar is drawn when a cell reports, not by a thread, so that the parent sleeps while a cell is timed.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or plain_console(stderr=True)
        self.total = total
        self.width = len(str(total))
        self._number = 0
        self._label = self._stage = ""
        self._last_line_s = self._stage_s = time.monotonic()  # time of the last line, start of the stage
        self._began_s: float | None = None  # start of the current cell
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
        self._task = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.update(self._task, visible=False)
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line that concerns no cell."""
        self.console.print(printable(redact(text)), soft_wrap=True)

    def begin(self, label: str, announced: bool = True) -> None:
        """Start a cell for `update`; without a terminal a line announces it if `announced`."""
        self._label = label
        if announced and not self.console.is_terminal:
            self._began_s = time.monotonic()
            self._line(f"{label} started")
        self.update("start", 0, 0)

    def update(self, stage: str, done: int, total: int) -> None:
        """Show progress of the current cell; the signature is `quantlab.measurement.cell.Progress`."""
        now_s = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_s = stage, now_s
        if not self.console.is_terminal and now_s - self._last_line_s >= HEARTBEAT_S:
            of = f" {done} of {total}" if total else ""
            self._line(f"{self._label} · {stage}{of}{self._remaining(done, total, now_s)}")
        if self.console.is_terminal:
            self._bar.update(
                self._task,
                description=printable(f"{self._number + 1:>{self.width}}/{self.total} {self._label} · {stage}"),
                completed=done,
                total=total or None,
                visible=True,
            )
            self._bar.refresh()

    def _line(self, text: str) -> None:
        self._last_line_s = time.monotonic()
        self.say(f"{self._number + 1:>{self.width}}/{self.total}   {text}")

    def _remaining(self, done: int, total: int, now_s: float) -> str:
        """Estimated remaining time of the current stage and of the cells after this one, as far as known."""
        parts = []
        if done and total:
            parts.append(f"{minutes((now_s - self._stage_s) * (total - done) / done)} left")
        after = self.total - self._number - 1
        if after and self._took_s:
            parts.append(f"{minutes(after * sum(self._took_s) / len(self._took_s))} more for the other cells")
        return f", about {', '.join(parts)}" if parts else ""

    def end(self, label: str, record: Record, note: str = "") -> None:
        """Print the result line of a cell."""
        self._number += 1
        if self._began_s is not None:
            self._took_s.append(time.monotonic() - self._began_s)
            self._began_s = None
        if self.console.is_terminal:
            self._bar.update(self._task, visible=False)
            self._bar.refresh()
        mark = MARKS.get(record.status, FAILED)
        self.console.print(
            Text.assemble(
                f"{self._number:>{self.width}}/{self.total} ",
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
