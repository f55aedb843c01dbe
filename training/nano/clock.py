"""Clocks of a training run."""

import time


class Stopwatch:
    """Stopwatch of the training time; paused within a `with` block."""

    def __init__(self, elapsed_s: float):
        self._start = time.perf_counter() - elapsed_s

    def elapsed_s(self) -> float:
        return time.perf_counter() - self._start

    def __enter__(self) -> None:
        self._paused = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._start += time.perf_counter() - self._paused


class Interval:
    """Timer that fires once every `minutes`, on a clock that all processes share."""

    def __init__(self, minutes: float):
        self._length_s = 60 * minutes
        self._next_s: float | None = None

    def passed(self, now_s: float) -> bool:
        if self._next_s is None:
            self._next_s = now_s + self._length_s
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self._length_s
        return True
