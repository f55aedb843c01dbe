"""Logging of a grid to MLflow: `sync` after each cell, with a time limit if the store is a server.

Nothing else may run while a cell is timed, so the grid waits until everything is logged or the time limit is reached.
What is incomplete by then is repeated after the next cell, as after a kill.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from quantlab.config.schema import TrackingConfig
from quantlab.records.schema import Record
from quantlab.tracking import summary
from quantlab.tracking.store import TrackingError, query, sync_command, ui_links
from quantlab.tracking.summary import Draw
from quantlab.tracking.sync import sync
from quantlab.util.counted import counted

# Seconds of waiting for a server within which requests are sent. A local store has no limit.
CELL_S = 4.0  # before the first cell, after each cell, and the minimum at the end
PER_CELL_S = 10.0  # total per cell of the sweep; the end gets what the cells did not use
END_S = 60.0  # maximum at the end
_SHOWN = (
    "SELECT experiment_id FROM runs JOIN tags USING (run_uuid) "
    "WHERE status = 'FINISHED' AND key = 'quantlab.content' AND value = ?"
)


class BackgroundLogger:
    """Logs the records of one grid to MLflow.

    Errors of MLflow are reported once and never raised; missing runs are retried after the next cell.
    """

    def __init__(self, root: str | Path, tracking: TrackingConfig, say: Callable[[str], None]) -> None:
        self._root, self._tracking, self._say = Path(root), tracking, say
        self._sweep = ""
        self._left: list[str] = []  # measured cells that are not known to be in MLflow
        self._experiment_id: str | None = None
        self._waited_s = 0.0
        self._said: set[str] = set()
        self._trouble: TrackingError | None = None

    def begin(self, sweep: str, cell_ids: Sequence[str]) -> None:
        """Store which cells the sweep has, so that `quantlab sync` can log it later."""
        self._sweep = sweep
        if self._tracking.name != "off":
            with contextlib.suppress(OSError):  # a full disk, which the cells report
                summary.note_sweep(self._root, sweep, cell_ids)

    def prepare(self) -> None:
        """Import MLflow and set up the store before anything is timed; close runs that killed processes left open."""
        self._bring([], CELL_S)
        self._waited_s = min(CELL_S, self._waited_s)  # importing MLflow does not count as waiting

    def log(self, *cell_ids: str) -> None:
        """Log these records, and earlier ones that are missing."""
        self._left += cell_ids
        if self._left:
            self._bring(list(self._left), CELL_S)

    def finish(self, cells: Sequence[Record], draw: Draw) -> None:
        """Log the missing runs of the sweep and its summary; print the command that logs the rest.

        `draw` is that of `sync`.
        """
        if self._tracking.name == "off":
            return
        if self._tracking.name == "local":  # without importing MLflow, for a grid that had nothing left to do
            self._experiment_id = query(self._root, _SHOWN, summary.content(cells))
        if self._left or self._experiment_id is None or self._tracking.name == "server":
            ids = [cell.cell_id for cell in cells]
            left_s = max(CELL_S, PER_CELL_S * len(ids) - self._waited_s)
            self._bring(ids, min(END_S, left_s), [self._sweep], draw)
        if self._trouble is not None and self._trouble.passes:
            left = f"{len(self._left)} of {counted(len(cells), 'cell')} not yet"
            what = left if self._left else "the sweep may be incomplete"
            self._say(f"{what} in MLflow; once it is reachable, run: {sync_command(self._root, self._tracking)}")

    @property
    def links(self) -> dict[str, str]:
        """Name → address of the pages that show the sweep; empty if MLflow is not known to have it."""
        return {} if self._experiment_id is None else ui_links(self._tracking, self._experiment_id, self._sweep)

    def _bring(
        self, cells: list[str], limit_s: float, sweeps: Sequence[str] = (), draw: Draw = lambda cell_ids: ("", {})
    ) -> None:
        """`sync` with a time limit; errors are reported."""
        if self._tracking.name == "off":
            return
        limit_s = math.inf if self._tracking.name == "local" else limit_s
        before, self._trouble = self._trouble, None
        began_s = time.monotonic()
        try:
            found = sync(self._root, self._tracking, draw, cells, sweeps, limit_s)
        except TrackingError as error:
            self._trouble = error
        except Exception as error:  # errors of MLflow must not end the grid
            self._trouble = TrackingError(f"MLflow: {type(error).__name__}: {error}")
        self._waited_s += time.monotonic() - began_s
        if self._trouble is not None:
            again = "; retried after each cell" if self._trouble.passes else ""
            self._tell(f"not in MLflow yet: {self._trouble}{again}")
            return
        self._experiment_id = found.experiment_id
        self._left = [cell_id for cell_id in self._left if cell_id not in cells]
        for problem in found.problems:
            self._tell(f"not in MLflow: {problem}")
        if before is not None and not self._left:
            self._said.clear()
            self._say("MLflow is reachable again, and all missing runs are logged")

    def _tell(self, text: str) -> None:
        """Report a text once."""
        if text not in self._said:
            self._said.add(text)
            self._say(text)
