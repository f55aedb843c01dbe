"""Queue of a grid's runs for MLflow; no cell waits for it long."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.tracking import runs, summary
from quantlab.tracking.background import BackgroundLogger
from quantlab.tracking.errors import TrackingError, Unreachable
from quantlab.tracking.log import log_once
from quantlab.tracking.markers import begin_sweep, cell_marker, logged_run, sweep_marker
from quantlab.tracking.store import Store, ui_links
from quantlab.util.address import VARIABLE, Address

# Seconds that a grid waits for a server. A local store has no limit: writing it is this machine's own work.
ANSWER_S = 2.0  # for a sign of life
BEGIN_S = 3.0  # for the experiment, before the first cell
CELL_S = 6.0  # for the run of a cell, and what is missing of those before
PER_CELL_S = 10.0  # for everything, per cell of the sweep: what the cells leave is for the end
END_S = 60.0  # at the end, at most
AGAIN_S = 3.0  # at the end, for a server that does not answer at all
RETRY_S = 0.5  # between two looks whether it has come back


class Outbox:
    """The runs of one grid, on their way to MLflow.

    Nothing here raises what MLflow raises: it is said once, and what is missing is tried again after the next cell.
    """

    def __init__(self, root: str | Path, tracking: TrackingConfig, say: Callable[[str], None]) -> None:
        self.root, self.tracking = Path(root), tracking
        self._say = say
        self._courier = BackgroundLogger(self.root, tracking)
        self._allowed_s = PER_CELL_S  # what may be waited from here on
        self._sweep: str | None = None
        self._said = ""
        self._trouble: TrackingError | None = None

    def begin(self, sweep: str, cell_ids: Sequence[str]) -> None:
        """Note which cells the sweep has, for whoever brings them."""
        self._sweep = sweep
        if self.tracking.name != "off":
            with contextlib.suppress(OSError):  # a full disk; the cells will say so
                begin_sweep(self.root, sweep, cell_ids)

    def links(self) -> dict[str, str]:
        """Name → address of the pages that show the sweep; empty where MLflow knows nothing yet."""
        return ui_links(self.root, self.tracking, self._sweep)

    def prepare(self) -> None:
        """Import MLflow and set up the store, before anything is timed; close what an earlier process left half."""
        if self.tracking.name != "off":
            self._courier.add("", runs.close_interrupted)
            self._let(BEGIN_S)

    def log(self, cell_id: str, sweep: str) -> None:
        """Bring a cell's record, and what is missing of earlier ones."""
        if self.tracking.name == "off":
            return
        if not logged_run(cell_marker(self.root, cell_id), self.root, self.tracking) and self._is_readable(cell_id):
            self._courier.add(cell_id, partial(_log, self.root, self.tracking, cell_id, sweep))
            self._let(CELL_S)
        self._allowed_s += PER_CELL_S

    def _is_readable(self, cell_id: str) -> bool:
        why = f"cell {cell_id} has no record"
        try:
            if storage.read(self.root, cell_id) is not None:
                return True
        except (ValueError, OSError) as error:
            why = str(error)
        self._say(f"not in MLflow: {why}")
        return False

    def summarise(
        self, sweep: str, cell_ids: Sequence[str], table: str, plots: Callable[[], Mapping[str, bytes]] = dict
    ) -> None:
        """Bring the summary run and what is missing still; say how the rest gets there.

        `table` and `plots` are those of `quantlab.tracking.summary.log_sweep`.
        """
        if self.tracking.name == "off":
            return
        cells = summary.read(self.root, cell_ids)
        marker = sweep_marker(self.root, sweep, summary.fingerprint(cells))
        if not logged_run(marker, self.root, self.tracking):
            task = partial(_summarise, self.root, self.tracking, sweep, cell_ids, table, plots())
            self._courier.add(f"sweep {sweep}", task)
        self._finish()
        if (left := self._courier.left) and self._passes:
            cells_left = len(set(cell_ids) & set(left))
            what = f"{cells_left} of {len(cell_ids)} cells are" if cells_left else "the summary of the sweep is"
            self._say(f"{what} not in MLflow; when it answers again: {sync_command(self.root, self.tracking)}")

    def _finish(self) -> None:
        """Give what is missing the time that the cells have left over."""
        end_s = time.monotonic() + min(END_S, self._allowed_s - PER_CELL_S)
        give_up_s = min(end_s, time.monotonic() + AGAIN_S)
        while self._courier.left and time.monotonic() < end_s:
            self._let(end_s - time.monotonic())
            if not isinstance(self._trouble, Unreachable) or time.monotonic() + RETRY_S > give_up_s:
                return
            time.sleep(RETRY_S)  # it may be starting

    def _let(self, work_s: float) -> None:
        self._trouble, waited_s = self._courier.let(*self._limits(work_s))
        if self.tracking.name == "server":  # a local store is waited for as long as it takes
            self._allowed_s -= waited_s
        self._tell("" if self._trouble is None else str(self._trouble))

    def _limits(self, work_s: float) -> tuple[float | None, float | None]:
        if self.tracking.name == "local":
            return None, None
        left_s = max(0.0, self._allowed_s)
        answer_s = min(ANSWER_S, left_s)
        return answer_s, min(work_s, left_s - answer_s)

    @property
    def _passes(self) -> bool:
        """Whether what went wrong last may be over by itself."""
        return self._trouble is None or self._trouble.passes

    def _tell(self, trouble: str) -> None:
        """Once when it begins, and once when it is over."""
        if trouble and trouble != self._said:
            again = "; trying again after each cell" if self._passes else ""
            self._say(f"not in MLflow yet: {trouble}{again}")
        elif self._said and not trouble and not self._courier.left:
            self._say("MLflow answers again: what was missing is there")
        else:
            return
        self._said = trouble


def sync_command(root: str | Path, tracking: TrackingConfig) -> str:
    """What brings everything in, at another time."""
    hides = isinstance(tracking.uri, Address) and tracking.uri.hides  # what is hidden is not for a terminal to show
    uri = f'"${VARIABLE}"' if hides else shlex.quote(str(tracking.uri))
    place = f" --uri {uri}" if tracking.name == "server" else ""
    experiment = f" --experiment {shlex.quote(tracking.experiment)}" if tracking.experiment != "quantlab" else ""
    return f"quantlab sync --root {shlex.quote(str(root))}{place}{experiment}"


def _log(root: Path, tracking: TrackingConfig, cell_id: str, sweep: str, store: Store) -> None:
    log_once(store, root, tracking, runs.identity(root, cell_id), sweep)


def _summarise(
    root: Path,
    tracking: TrackingConfig,
    sweep: str,
    cell_ids: Sequence[str],
    table: str,
    plots: Mapping[str, bytes],
    store: Store,
) -> None:
    summary.summarise(store, root, tracking, sweep, summary.read(root, cell_ids), table, plots)
