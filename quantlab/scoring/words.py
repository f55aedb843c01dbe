"""Matching of words with times: equal words of two texts, in one alignment of both."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from quantlab.records.schema import Utterance
from quantlab.records.word_times import Matches
from quantlab.scoring.alignment import align
from quantlab.scoring.score import Scoring

_PLAIN = "jiwer"  # words keep their times only one by one, so no compounds


def match(written: Sequence[str], spoken: Sequence[str], scoring: Scoring) -> Matches:
    """Places of equal words in two texts.

    Each word is normalised by itself, as a normaliser for texts joins some ("twenty five" becomes 25) and its words
    would have no times. Words of which nothing is left are passed over.

    Args:
        written: words as written, of the hypothesis.
        spoken: words as written, of the truth or another hypothesis.
        scoring: whose normaliser is used; its scorer and unit are not.

    Returns:
        Pairs of places in `written` and `spoken`, in order.
    """
    mine, theirs = _named(written, scoring), _named(spoken, scoring)
    if not mine or not theirs:
        return ()
    steps = align([name for _, name in theirs], [name for _, name in mine], _PLAIN).steps
    return tuple((mine[step.written_from][0], theirs[step.spoken_from][0]) for step in steps if step.right)


def with_matches(item: Utterance, scoring: Scoring) -> Utterance:
    """The utterance with its words matched to the true ones; unchanged without either."""
    if item.words is None or item.spoken_words is None:
        return item
    found = match([word for word, *_ in item.words], [word for word, *_ in item.spoken_words], scoring)
    return item.model_copy(update={"matches": found})


def check_spoken(words: Sequence[str], text: str, scoring: Scoring) -> str | None:
    """How the words of a truth differ from its reference; None if they are its words."""
    said, written = scoring.normalised(" ".join(words)), scoring.normalised(text)
    return None if said == written else f"{said!r} instead of {written!r}"


def _named(words: Sequence[str], scoring: Scoring) -> list[tuple[int, str]]:
    """Places and normalised words; one that becomes several ("can't", can not) stays one."""
    found = ((place, _normalised(word, scoring)) for place, word in enumerate(words))
    return [(place, name) for place, name in found if name]


@functools.lru_cache(maxsize=2**16)  # cells of a grid have the same words
def _normalised(word: str, scoring: Scoring) -> str:
    return "".join(scoring.units(word))
