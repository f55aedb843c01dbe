"""Progress messages while a large grid is composed and planned."""

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


def over(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Iterate over the items, with progress lines on stderr: `34,000 of 100,000 cells validated`."""
    next_s = time.monotonic() + FIRST_S
    for done, item in enumerate(items):
        if len(items) >= MANY and time.monotonic() >= next_s:
            next_s = time.monotonic() + EVERY_S
            print(f"{done:,} of {len(items):,} {what}", file=sys.stderr, flush=True)
        yield item


def announce(arguments: Sequence[str]) -> None:
    """Print that a large sweep is being composed; the number of points is estimated from the arguments."""
    values = (argument.partition("=")[2] for argument in arguments if "=" in argument)
    about = math.prod(max([value.count(",") + 1, *map(int, _RANGE.findall(value))]) for value in values)
    if about >= MANY and {"-m", "--multirun"} & set(arguments):
        print(f"composing about {about:,} cells", file=sys.stderr, flush=True)
