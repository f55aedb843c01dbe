"""Grouping of equal failure reasons, so that each is printed once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

NAMING = ("model.name", "model.repo", "quant.name")  # settings that a reason may name


def key(status: str, reason: str, setting: Callable[[str], object]) -> tuple[str, ...]:
    """Equal for cells that did not end well for the same reason.

    Args:
        status: of the cell.
        reason: its own.
        setting: what its configuration says at a dotted key.
    """
    known = [re.escape(str(name)) for name in map(setting, NAMING) if name]
    named = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(known)})(?![A-Za-z0-9])") if known else None
    return (status, *("" if named and named.search(word) else word for word in reason.split()))


def joined(reasons: Sequence[str]) -> str:
    """The text for cells of one key; where their words differ, all of them: `model=small,base`."""
    if len(set(reasons)) == 1:
        return reasons[0]
    return " ".join(map(_word, zip(*(reason.split() for reason in reasons), strict=True)))


def _word(found: Sequence[str]) -> str:
    words = list(dict.fromkeys(found))
    starts = {word.partition("=")[0] for word in words}
    if len(words) > 1 and len(starts) == 1 and all("=" in word for word in words):
        return f"{starts.pop()}={','.join(word.partition('=')[2] for word in words)}"
    return ", ".join(words)
