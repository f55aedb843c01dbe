"""The text of a long recording from the texts of its windows.

Where windows overlap, what both heard is in both texts, but for the words at their edges, which are cut. The end of
the one text is aligned with the beginning of the next (an overlap alignment, as sequence assembly does it), and the
text goes over from one to the other in the middle of what they agree on, far from both edges. Words are compared and
not tokens: at the edge of a window the same word has other tokens (no space before it, a capital, a full stop).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MATCH, ERROR = 2, -1  # both edges of an overlap are cut words: two errors are no sign against it
MOST_WORDS = 150  # of a text that an overlap may take: 30 s at five words a second
SPACELESS = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})  # written without spaces: letters for words


def joined_text(texts: Sequence[str], overlapping: bool, language: str = "en") -> str:
    """One text out of those of consecutive windows.

    Args:
        texts: in order.
        overlapping: whether neighbours heard some of the same audio.
        language: a code of Whisper's.
    """
    if len(texts) == 1:
        return texts[0]
    space = "" if language in SPACELESS else " "
    words: list[str] = []
    for text in texts:
        more = text.split() if space else list("".join(text.split()))
        words = merged(words, more) if overlapping else words + more
    return space.join(words)


def merged(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Two runs of words of which the end and the beginning may be the same.

    Without a sign that they are, the one simply follows the other.
    """
    tail, head = left[-MOST_WORDS:], right[:MOST_WORDS]
    pairs = _agreement(list(map(_bare, tail)), list(map(_bare, head)))
    if not pairs:
        return [*left, *right]
    kept, dropped = pairs[len(pairs) // 2]
    return [*left[: len(left) - len(tail) + kept], *right[dropped:]]


def _bare(word: str) -> str:
    """The word without its capitals and punctuation; those alone stay what they are."""
    return "".join(letter for letter in word.casefold() if letter.isalnum()) or word


def _agreement(tail: Sequence[str], head: Sequence[str]) -> list[tuple[int, int]]:
    """Positions of the words that are the same in the best alignment of an end of `tail` with a beginning of `head`.

    Needleman and Wunsch (1970) with both outer ends free; where no alignment is better than none, empty.
    """
    score = np.zeros((len(tail) + 1, len(head) + 1), int)
    score[0] = ERROR * np.arange(len(head) + 1)
    for i, word in enumerate(tail, start=1):
        for j, other in enumerate(head, start=1):
            same = score[i - 1, j - 1] + (MATCH if word == other else ERROR)
            score[i, j] = max(same, score[i - 1, j] + ERROR, score[i, j - 1] + ERROR)
    i, j = len(tail), int(np.argmax(score[-1]))
    pairs = []
    while i and j:
        equal = tail[i - 1] == head[j - 1]
        if score[i, j] == score[i - 1, j - 1] + (MATCH if equal else ERROR):
            i, j = i - 1, j - 1
            if equal:
                pairs.append((i, j))
        elif score[i, j] == score[i - 1, j] + ERROR:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
