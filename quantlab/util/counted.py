"""Numbers with their noun."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """`1 cell`, `2 cells`, `2,620 utterances`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
