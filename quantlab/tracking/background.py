"""Background thread that sends tasks to MLflow, one after another.

It goes on with what it began: nothing is started a second time while the first may still arrive. When its time is over
it stops before its next request, as nothing else may run while a cell is timed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from quantlab.config.schema import TrackingConfig
from quantlab.tracking.errors import TrackingError, Unreachable
from quantlab.tracking.reach import reach
from quantlab.tracking.store import Store, connected, load, server_uri

_ASKING, _IMPORTING, _WRITING, _DONE = range(4)  # how far it has come since it was last let
Task = Callable[[Store], object]


class BackgroundLogger:
    """Carries the tasks of one grid; only `let` lets it work."""

    def __init__(self, root: Path, tracking: TrackingConfig) -> None:
        self._root, self._tracking = root, tracking
        self._tasks: dict[str, Task] = {}  # in order
        self._trouble: TrackingError | None = None
        self._let, self._phase = False, _DONE
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="MLflow", daemon=True)

    @property
    def left(self) -> list[str]:
        """The names of the tasks that are not done."""
        with self._changed:
            return list(self._tasks)

    def add(self, name: str, task: Task) -> None:
        """Something to carry; a name that is there already is the same task."""
        with self._changed:
            self._tasks.setdefault(name, task)

    def let(self, answer_s: float | None, work_s: float | None) -> tuple[TrackingError | None, float]:
        """Let it work until all is done, something fails, or the time is over.

        Args:
            answer_s: how long to wait for a sign of life; None for ever.
            work_s: and then for the tasks.

        Returns:
            What went wrong, and the seconds waited. Importing MLflow has no limit and does not count.
        """
        with self._changed:
            self._trouble, self._phase, self._let = None, _ASKING, True
            self._changed.notify_all()
            if not self._thread.is_alive():
                self._thread.start()
            try:
                waited_s, late = self._wait(_IMPORTING, answer_s)
                if not late:
                    self._wait(_WRITING, None)
                    worked_s, late = self._wait(_DONE, work_s)
                    waited_s += worked_s
            finally:
                self._let = False
            return (Unreachable(f"MLflow: {late}") if late else self._trouble), waited_s

    def _wait(self, phase: int, limit_s: float | None) -> tuple[float, str]:
        """Seconds until the thread has come that far, and what to say if it has not."""
        began_s = time.monotonic()
        there = self._changed.wait_for(lambda: self._phase >= phase, limit_s)
        return time.monotonic() - began_s, "" if there else f"no answer within {limit_s:.1f} s"

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._let and self._phase < _DONE)
            try:
                self._turn()
                trouble = None
            except TrackingError as error:
                trouble = error
            except Exception as error:  # of MLflow's, which must not end the grid
                trouble = TrackingError(f"MLflow: {type(error).__name__}: {error}")
            self._reach(_DONE, trouble)

    def _turn(self) -> None:
        if self._tracking.name == "server":
            reach(server_uri(self._tracking))
        self._reach(_IMPORTING)
        load()
        self._reach(_WRITING)
        tried: set[str] = set()
        refused = None
        while item := self._next(tried):
            tried.add(item[0])
            try:
                self._carry(*item)
            except Unreachable:
                raise
            except TrackingError as error:  # of this one; the next may do
                refused = error
        if refused is not None:
            raise refused

    def _next(self, tried: set[str]) -> tuple[str, Task] | None:
        with self._changed:
            return next((item for item in self._tasks.items() if item[0] not in tried), None)

    def _carry(self, name: str, task: Task) -> None:
        with connected(self._root, self._tracking, self._pause) as store:
            task(store)
        with self._changed:
            del self._tasks[name]

    def _pause(self) -> None:
        """Stop until let again; being here at all means that the server answered."""
        with self._changed:
            self._changed.wait_for(lambda: self._let)
        self._reach(_WRITING)

    def _reach(self, phase: int, trouble: TrackingError | None = None) -> None:
        with self._changed:
            self._phase, self._trouble = max(self._phase, phase), trouble
            self._changed.notify_all()
