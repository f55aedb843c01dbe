"""Merging of the hypotheses of overlapping windows into one text.

Overlapping windows both contain the words of the overlap, except for words cut at the edges. The end of one text is
aligned with the start of the next (an overlap alignment, as in sequence assembly), and the merged text switches from
one to the other in the middle of the words they agree on, far from both edges. Words are compared, not tokens, since
the tokens of a word differ at the edge of a window (no space before it, a capital, a full stop).

Repeated words match at any offset. The number of shared words is then estimated from the audio: the share of a
window's text in the overlap is taken to equal the share of its sound in the overlap.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from quantlab.util.languages import is_spaceless

MATCH, ERROR = 2, -1  # an overlap has a cut word at both edges, so two errors must not outweigh it
BEYOND = -2  # per word of either text beyond the number expected in the shared audio: outweighs a match


class Overlap(NamedTuple):
    """The overlap of two consecutive windows, as a share of the sound in each."""

    before: float
    after: float


def joined_text(texts: Sequence[str], overlaps: Sequence[Overlap] = (), language: str = "en") -> str:
    """Merge the texts of consecutive windows.

    Args:
        texts: the texts in order.
        overlaps: overlap of each window but the first with the one before it; empty if windows do not overlap.
        language: Whisper's language code.
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
    """Words; or single characters with any space after them, in languages written without spaces."""
    return re.findall(r"\S\s*", text) if is_spaceless(language) else text.split()


def merged(left: Sequence[str], right: Sequence[str], shared: float) -> list[str]:
    """Merge two sequences of words where the end of one may match the start of the other.

    Without a match they are concatenated.

    Args:
        left: words of the first window.
        right: words of the second window.
        shared: expected number of shared words, from the audio. At most twice as many are matched, so that a loop
            that fills a window keeps its length.
    """
    most = math.ceil(2 * shared) + 1  # plus a cut word
    tail, head = left[-most:], right[:most]
    pairs = _agreement(list(map(_bare, tail)), list(map(_bare, head)), shared)
    if not pairs:
        return [*left, *right]
    kept, dropped = pairs[len(pairs) // 2]
    return [*left[: len(left) - len(tail) + kept], *right[dropped:]]


def _bare(word: str) -> str:
    """The word in lower case without punctuation; pure punctuation is unchanged."""
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word.strip()


def _agreement(tail: Sequence[str], head: Sequence[str], shared: float) -> list[tuple[int, int]]:
    """Positions of matching words in the best alignment of an end of `tail` with a start of `head`.

    Needleman and Wunsch (1970) with both outer ends free, limited by the shared audio; empty if no alignment scores
    better than none.
    """
    score = [[_beyond(len(tail) - i, shared) for i in range(len(tail) + 1)]]  # one column per word of `head`
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
