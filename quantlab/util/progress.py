"""Progress messages while a large grid is composed and planned."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

MANY = 1000  # points; fewer take no time worth a word
FIRST_S, EVERY_S = 1.0, 5.0  # until the first line, and from there on
_RANGE = re.compile(r"range\((?:\d{1,9},)?(\d{1,9})\)")
Item = TypeVar("Item")


def over(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items, with a line on stderr now and then: `34,000 of 100,000 cells validated`."""
    next_s = time.monotonic() + FIRST_S
    for done, item in enumerate(items):
        if len(items) >= MANY and time.monotonic() >= next_s:
            next_s = time.monotonic() + EVERY_S
            print(f"{done:,} of {len(items):,} {what}", file=sys.stderr, flush=True)
        yield item


def announce(arguments: Sequence[str]) -> None:
    """Say that a sweep of many points is composed, before anything has counted them: about as many as are written."""
    values = (argument.partition("=")[2] for argument in arguments if "=" in argument)
    about = math.prod(max([value.count(",") + 1, *map(int, _RANGE.findall(value))]) for value in values)
    if about >= MANY and {"-m", "--multirun"} & set(arguments):
        print(f"composing about {about:,} cells", file=sys.stderr, flush=True)
