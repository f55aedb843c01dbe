"""What a grid has for MLflow: `sync` after each cell, with a time limit where it goes to a server.

Nothing else may run while a cell is timed, so that the grid waits: until all is there, or its time is over. What was
half done then is done again after the next cell, as after a kill.
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

# Seconds of waiting for a server in which requests are begun. A local store has no limit: writing it is our own work.
CELL_S = 4.0  # before the first cell, after each, and at the end at least
PER_CELL_S = 10.0  # for everything, per cell of the sweep: what the cells leave is for the end
END_S = 60.0  # at the end, at most
_SHOWN = (
    "SELECT experiment_id FROM runs JOIN tags USING (run_uuid) "
    "WHERE status = 'FINISHED' AND key = 'quantlab.content' AND value = ?"
)


class BackgroundLogger:
    """Brings the records of one grid to MLflow.

    Nothing here raises what MLflow raises: it is said once, and what is missing is tried again after the next cell.
    """

    def __init__(self, root: str | Path, tracking: TrackingConfig, say: Callable[[str], None]) -> None:
        self._root, self._tracking, self._say = Path(root), tracking, say
        self._sweep = ""
        self._left: list[str] = []  # cells that were measured and are not known to be there
        self._experiment_id: str | None = None
        self._waited_s = 0.0
        self._said: set[str] = set()
        self._trouble: TrackingError | None = None

    def begin(self, sweep: str, cell_ids: Sequence[str]) -> None:
        """Note which cells the sweep has, for whoever brings them."""
        self._sweep = sweep
        if self._tracking.name != "off":
            with contextlib.suppress(OSError):  # a full disk; the cells will say so
                summary.note_sweep(self._root, sweep, cell_ids)

    def prepare(self) -> None:
        """Import MLflow and set up the store, before anything is timed; close what an earlier process left half."""
        self._bring([], CELL_S)
        self._waited_s = min(CELL_S, self._waited_s)  # the import of MLflow is no waiting

    def log(self, *cell_ids: str) -> None:
        """Bring records, and what is missing of earlier ones."""
        self._left += cell_ids
        if self._left:
            self._bring(list(self._left), CELL_S)

    def finish(self, cells: Sequence[Record], draw: Draw) -> None:
        """Bring what is missing of the sweep, and its summary; say how the rest gets there.

        `draw` is that of `sync`.
        """
        if self._tracking.name == "off":
            return
        if self._tracking.name == "local":  # asked without MLflow, for a grid that had nothing left to do
            self._experiment_id = query(self._root, _SHOWN, summary.content(cells))
        if self._left or self._experiment_id is None or self._tracking.name == "server":
            ids = [cell.cell_id for cell in cells]
            left_s = max(CELL_S, PER_CELL_S * len(ids) - self._waited_s)
            self._bring(ids, min(END_S, left_s), [self._sweep], draw)
        if self._trouble is not None and self._trouble.passes:
            what = f"{len(self._left)} of {len(cells)} cells are not" if self._left else "the sweep may not be whole"
            self._say(f"{what} in MLflow; when it answers again: {sync_command(self._root, self._tracking)}")

    @property
    def links(self) -> dict[str, str]:
        """Name → address of the pages that show the sweep; empty where MLflow is not known to have it."""
        return {} if self._experiment_id is None else ui_links(self._tracking, self._experiment_id, self._sweep)

    def _bring(
        self, cells: list[str], limit_s: float, sweeps: Sequence[str] = (), draw: Draw = lambda cell_ids: ("", {})
    ) -> None:
        """`sync`, for some seconds; what went wrong is said."""
        if self._tracking.name == "off":
            return
        limit_s = math.inf if self._tracking.name == "local" else limit_s
        before, self._trouble = self._trouble, None
        began_s = time.monotonic()
        try:
            found = sync(self._root, self._tracking, draw, cells, sweeps, limit_s)
        except TrackingError as error:
            self._trouble = error
        except Exception as error:  # of MLflow's, which must not end the grid
            self._trouble = TrackingError(f"MLflow: {type(error).__name__}: {error}")
        self._waited_s += time.monotonic() - began_s
        if self._trouble is not None:
            again = "; trying again after each cell" if self._trouble.passes else ""
            self._tell(f"not in MLflow yet: {self._trouble}{again}")
            return
        self._experiment_id = found.experiment_id
        self._left = [cell_id for cell_id in self._left if cell_id not in cells]
        for problem in found.problems:
            self._tell(f"not in MLflow: {problem}")
        if before is not None and not self._left:
            self._said.clear()
            self._say("MLflow answers again: what was missing is there")

    def _tell(self, text: str) -> None:
        """Once."""
        if text not in self._said:
            self._said.add(text)
            self._say(text)
