"""Progress messages of work that takes long before anything is measured."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

MANY = 1000  # points; fewer are composed too quickly for a message
FIRST_S, EVERY_S = 1.0, 5.0  # seconds before the first line, and between lines
_RANGE = re.compile(r"range\((?:\d{1,9},)?(\d{1,9})\)")
Item = TypeVar("Item")


def over(items: Sequence[Item], what: str, timed: bool = False) -> Iterator[Item]:
    """Iterate over the items, with progress lines on stderr: `34,000 of 100,000 cells validated`.

    Args:
        items: the items.
        what: name of them, once done.
        timed: each takes long: print however few there are, and the time left.
    """
    began_s = time.monotonic()
    next_s = began_s + FIRST_S
    for done, item in enumerate(items):
        now_s = time.monotonic()
        if (timed or len(items) >= MANY) and now_s >= next_s:
            next_s = now_s + EVERY_S
            left_s = (now_s - began_s) * (len(items) - done) / done if timed and done else None
            left = "" if left_s is None else f", about {minutes(left_s)} left"
            print(f"{done:,} of {len(items):,} {what}{left}", file=sys.stderr, flush=True)
        yield item


def minutes(seconds: float) -> str:
    """A duration as people say it: `80 s`, `3 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def announce(arguments: Sequence[str]) -> None:
    """Print that a large sweep is being composed; the number of points is estimated from the arguments."""
    values = (argument.partition("=")[2] for argument in arguments if "=" in argument)
    about = math.prod(max([value.count(",") + 1, *map(int, _RANGE.findall(value))]) for value in values)
    if about >= MANY and {"-m", "--multirun"} & set(arguments):
        print(f"composing about {about:,} cells", file=sys.stderr, flush=True)
