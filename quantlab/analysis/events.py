"""What a WER adds up, told apart in each utterance: loops, empty outputs, deletion bursts, inserted words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantlab.records.measured import BURST

Ints = npt.NDArray[np.int64]


class Events(NamedTuple):
    """Counts of each utterance of one system; None where an older record did not count them."""

    loops: Ints | None  # 0 or 1, as the next two
    empty: Ints  # an output without words
    bursts: Ints | None  # `BURST` or more deleted words in a row, in an output that has words
    insertions: Ints | None  # inserted words outside of loops

    def only(self, kept: Sequence[int]) -> Events:
        """The utterances at these positions, in this order."""
        loops, empty, bursts, insertions = (None if part is None else part[list(kept)] for part in self)
        assert empty is not None
        return Events(loops, empty, bursts, insertions)


def events(rows: Sequence[Mapping[str, Any]], deletions: Ints, insertions: Ints, written: Ints) -> Events:
    """The events of utterances with text.

    Args:
        rows: lines of the raw file.
        deletions: deleted words of each, as the next two.
        insertions: inserted words.
        written: words of the output.

    Raises:
        TypeError: a field is of another type.
    """
    loops = _loops([row.get("loop") for row in rows])
    return Events(
        loops=loops,
        empty=(written == 0).astype(np.int64),
        bursts=_bursts([row.get("burst_words") for row in rows], (deletions >= BURST) & (written > 0)),
        insertions=None if loops is None else insertions * (1 - loops),
    )


def _loops(flags: Sequence[object]) -> Ints | None:
    if not {*map(type, flags)} <= {bool, type(None)}:
        raise TypeError("loop of an utterance must be true, false or null")
    return None if None in flags else np.array(flags, dtype=np.int64)


def _bursts(words: Sequence[object], possible: npt.NDArray[np.bool_]) -> Ints | None:
    """Whether words are missing in a row; in an older record known only where too few are missing for a burst."""
    if not {*map(type, words)} <= {int, type(None)}:
        raise TypeError("burst_words of an utterance must be a whole number or null")
    if any(count is None and may for count, may in zip(words, possible, strict=True)):
        return None
    return np.array([bool(count) for count in words], dtype=np.int64)
