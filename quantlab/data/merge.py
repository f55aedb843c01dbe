"""Merging of the texts of overlapping windows into the text of a recording.

Where windows overlap, what both heard is in both texts, but for the words at their edges, which are cut. The end of
the one text is aligned with the beginning of the next (an overlap alignment, as sequence assembly does it), and the
text goes over from one to the other in the middle of what they agree on, far from both edges. Words are compared and
not tokens: at the edge of a window the same word has other tokens (no space before it, a capital, a full stop).

Words that repeat agree wherever they are laid. How many of them both windows heard is then told by the audio alone:
the part of a window's text that belongs to what it shares is taken to be the part of its sound that it shares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from quantlab.util.languages import is_spaceless

MATCH, ERROR = 2, -1  # both edges of an overlap are cut words: two errors are no sign against it
BEYOND = -2  # for each word of either text beyond those that the shared audio should hold: outweighs a match


class Overlap(NamedTuple):
    """What two consecutive windows share, as a share of the sound in each."""

    before: float
    after: float


def joined_text(texts: Sequence[str], overlaps: Sequence[Overlap] = (), language: str = "en") -> str:
    """One text out of those of consecutive windows.

    Args:
        texts: in order.
        overlaps: of each window but the first with the one before it; empty where windows follow each other.
        language: a code of Whisper's.
    """
    if len(texts) == 1:
        return texts[0]
    parts = [_parts(text, language) for text in texts]
    space = "" if is_spaceless(language) else " "
    if not overlaps:
        return space.join(word for words in parts for word in words).strip()
    joined = list(parts[0])
    for before, after, overlap in zip(parts[:-1], parts[1:], overlaps, strict=True):
        start = max(0, len(joined) - len(before))
        shared = (len(before) * overlap.before + len(after) * overlap.after) / 2
        joined[start:] = merged(joined[start:], after, shared)
    return space.join(joined).strip()


def _parts(text: str, language: str) -> list[str]:
    """Words; letters, with any space after them, where words are written without spaces."""
    return re.findall(r"\S\s*", text) if is_spaceless(language) else text.split()


def merged(left: Sequence[str], right: Sequence[str], shared: float) -> list[str]:
    """Two runs of words of which the end and the beginning may be the same.

    Without a sign that they are, the one simply follows the other.

    Args:
        left: of the window before.
        right: of the window after.
        shared: how many words both have heard, as far as the audio tells. Twice as many are the most that are looked
            for, so that a loop as long as a window keeps its length.
    """
    most = math.ceil(2 * shared) + 1  # and a word that is cut
    tail, head = left[-most:], right[:most]
    pairs = _agreement(list(map(_bare, tail)), list(map(_bare, head)), shared)
    if not pairs:
        return [*left, *right]
    kept, dropped = pairs[len(pairs) // 2]
    return [*left[: len(left) - len(tail) + kept], *right[dropped:]]


def _bare(word: str) -> str:
    """The word without its capitals and punctuation; those alone stay what they are."""
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word.strip()


def _agreement(tail: Sequence[str], head: Sequence[str], shared: float) -> list[tuple[int, int]]:
    """Positions of the words that are the same in the best alignment of an end of `tail` with a beginning of `head`.

    Needleman and Wunsch (1970) with both outer ends free, as far as the shared audio goes; where no alignment is
    better than none, empty.
    """
    score = [[_beyond(len(tail) - i, shared) for i in range(len(tail) + 1)]]  # a column for each word of `head`
    for word in head:
        before, column = score[-1], [score[-1][0] + ERROR]
        for i, other in enumerate(tail):
            same = before[i] + (MATCH if word == other else ERROR)
            column.append(max(same, before[i + 1] + ERROR, column[i] + ERROR))
        score.append(column)
    ends = [column[-1] + _beyond(j, shared) for j, column in enumerate(score)]
    i, j = len(tail), max(range(len(ends)), key=ends.__getitem__)
    pairs = []
    while i and j:
        equal = tail[i - 1] == head[j - 1]
        if score[j][i] == score[j - 1][i - 1] + (MATCH if equal else ERROR):
            i, j = i - 1, j - 1
            if equal:
                pairs.append((i, j))
        elif score[j][i] == score[j - 1][i] + ERROR:
            j -= 1
        else:
            i -= 1
    return pairs[::-1]


def _beyond(count: int, shared: float) -> float:
    return BEYOND * max(0.0, count - shared)
