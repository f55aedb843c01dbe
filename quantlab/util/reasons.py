"""Grouping of equal failure reasons, so that each is printed once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

NAMING = ("model.name", "model.repo", "quant.name")  # settings whose values may appear in a reason


def key(status: str, reason: str, setting: Callable[[str], object]) -> tuple[str, ...]:
    """Grouping key: equal for cells that ended without result for the same reason.

    Args:
        status: status of the cell.
        reason: reason of the cell.
        setting: the value of a dotted key in its configuration.
    """
    known = [re.escape(str(name)) for name in map(setting, NAMING) if name]
    named = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(known)})(?![A-Za-z0-9])") if known else None
    return (status, *("" if named and named.search(word) else word for word in reason.split()))


def joined(reasons: Sequence[str]) -> str:
    """One reason for all cells of a key; words that differ are listed: `model=small,base`."""
    if len(set(reasons)) == 1:
        return reasons[0]
    return " ".join(map(_word, zip(*(reason.split() for reason in reasons), strict=True)))


def _word(found: Sequence[str]) -> str:
    words = list(dict.fromkeys(found))
    starts = {word.partition("=")[0] for word in words}
    if len(words) > 1 and len(starts) == 1 and all("=" in word for word in words):
        return f"{starts.pop()}={','.join(word.partition('=')[2] for word in words)}"
    return ", ".join(words)
