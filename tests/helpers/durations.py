"""Durations for `make bench`."""

import time
from collections.abc import Callable


def seconds(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that an action takes."""
    begin = clock()
    action()
    return clock() - begin


def least(action: Callable[[], object], clock: Callable[[], float] = time.process_time, times: int = 3) -> float:
    """Fewest processor seconds of some runs, as other work can only add."""
    return min(seconds(action, clock) for _ in range(times))
