"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_until(
    found: Callable[[], Found], at_most_s: float = 100, said: Callable[[], str] = lambda: "", every_s: float = 0.05
) -> Found:
    """What `found` gives once it is true; raises TimeoutError with what is `said` where it never is."""
    deadline = time.monotonic() + at_most_s
    while not (value := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {at_most_s} s {said()}".rstrip())
        time.sleep(every_s)
    return value
