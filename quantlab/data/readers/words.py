"""The key `words` of a manifest: when each word of the reference is said."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from quantlab.records.word_times import SpokenWord
from quantlab.util.errors import ConfigError, shortened

KEY = "words"
_EXPECTED = (
    'expected [["word", start, end], …] with all words of the reference, in seconds from the beginning of the '
    "utterance, both null where unknown; if it is something else, dataset.ignored_columns=[words]"
)


def spoken_words(values: Mapping[str, Any]) -> tuple[SpokenWord, ...] | None:
    """The words with their times; None if the row has none.

    Raises:
        ConfigError: a word has no times of that form, or words are not in the order of their times.
    """
    given = values.get(KEY)
    if given is None:
        return None
    if not isinstance(given, list):
        raise ConfigError(f"words={shortened(given)}: {_EXPECTED}")
    found = tuple(map(_word, given))
    starts = [start_s for _, start_s, _ in found if start_s is not None]
    for before, after in pairwise(starts):
        if after < before:
            raise ConfigError(f"words: one starts at {after:g} s, after one that starts at {before:g} s; {_EXPECTED}")
    return found


def _word(item: Any) -> SpokenWord:
    if isinstance(item, list) and len(item) == 3 and isinstance(item[0], str):
        word, *times = item
        if times == [None, None]:
            return word, None, None
        if all(isinstance(time, int | float) and not isinstance(time, bool) for time in times):
            start_s, end_s = map(float, times)
            if 0 <= start_s <= end_s < float("inf"):
                return word, start_s, end_s
    raise ConfigError(f"words: {shortened(item)}; {_EXPECTED}")
