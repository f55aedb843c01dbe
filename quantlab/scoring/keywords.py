"""Words that matter to the user: their recall and precision."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from quantlab.records.schema import Utterance, to_json
from quantlab.scoring.alignment import Step, align
from quantlab.scoring.score import Scoring
from quantlab.util.errors import ConfigError, shortened

MOST_BYTES = 1_000_000
Counted = dict[str, tuple[int, int, int]]  # keyword → spoken, written, right
_Phrases = dict[str, tuple[tuple[str, tuple[str, ...]], ...]]  # first word → name and words of each keyword
_Span = tuple[int, int]


def read_keywords(path: str) -> tuple[str, ...]:
    """The words or phrases of a file in UTF-8, one in a line, each once.

    Raises:
        ConfigError: the file cannot be read, or holds none.
    """
    place = f"keywords {shortened(path)}"
    try:
        raw = Path(path).expanduser().read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{place}: {error.strerror}; expected a text file with one word or phrase in a line"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    found = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not found or len(raw) > MOST_BYTES:
        what = "it holds none" if not found else f"{len(raw):,} bytes, at most {MOST_BYTES:,}"
        raise ConfigError(f"{place}: {what}; expected one word or phrase in a line")
    return found


def fingerprint(keywords: Sequence[str]) -> str:
    """Hash of the keywords, whatever their order."""
    return hashlib.sha256(to_json(sorted(keywords)).encode("utf-8", "replace")).hexdigest()


def check_keywords(keywords: tuple[str, ...], references: Sequence[str], scoring: Scoring) -> None:
    """Refuse keywords that cannot be counted.

    Raises:
        ConfigError: one has no words after normalisation, or none of them occurs in the references.
    """
    for word in keywords:
        if not scoring.units(word):
            raise ConfigError(
                f"keyword {shortened(word)}: nothing is left of it after normalisation ({scoring.normaliser}); "
                "remove it from the file"
            )
    phrases = _phrases(keywords, scoring)
    if not any(_occurrences(scoring.units(text), phrases) for text in references):
        raise ConfigError(
            f"none of the keywords ({', '.join(map(shortened, keywords[:3]))}, …) occurs in the references, so there "
            "is no recall; take keywords of this corpus"
        )


def count_keywords(reference: str, hypothesis: str, keywords: tuple[str, ...], scoring: Scoring) -> Counted:
    """Occurrences of each keyword that the reference or the hypothesis has.

    An occurrence in the reference is right if all its words are aligned with equal words that follow one another in
    the hypothesis. An occurrence in the hypothesis that is not one of these is wrong. Occurrences of one keyword do
    not overlap; those of different keywords may ("york" in "new york").

    Args:
        reference: raw reference.
        hypothesis: raw hypothesis.
        keywords: raw keywords, normalised in the same way as the texts.
        scoring: how to compare.

    Returns:
        Normalised keyword → occurrences in the reference, in the hypothesis (right and wrong), right ones.
    """
    phrases = _phrases(keywords, scoring)
    spoken, written = scoring.units(reference), scoring.units(hypothesis)
    there, here = _occurrences(spoken, phrases), _occurrences(written, phrases)
    if not there and not here:
        return {}
    steps = align(spoken, written, scoring.scorer).steps if spoken else ()
    place = {word: step for step in steps for word in range(step.spoken_from, step.spoken_to)}
    found = {}
    for name in (*there, *(name for name in here if name not in there)):
        right = [span for start, end in there.get(name, []) if (span := _right(place, start, end)) is not None]
        wrong = [span for span in here.get(name, []) if not any(_overlap(span, other) for other in right)]
        found[name] = len(there.get(name, [])), len(right) + len(wrong), len(right)
    return found


def with_keywords(item: Utterance, keywords: tuple[str, ...] | None, scoring: Scoring) -> Utterance:
    """The utterance with its occurrences of the keywords; without any for None, or without text."""
    if item.hypothesis is None or keywords is None:
        return item.model_copy(update={"keywords": None})
    counted = count_keywords(item.reference, item.hypothesis, keywords, scoring)
    return item.model_copy(update={"keywords": counted})


def _right(place: dict[int, Step], start: int, end: int) -> _Span | None:
    """Where the hypothesis has words [start, end) of the reference; None if it does not."""
    steps = list(dict.fromkeys(place[word] for word in range(start, end)))
    follow = all(a.written_to == b.written_from for a, b in itertools.pairwise(steps))
    return (steps[0].written_from, steps[-1].written_to) if follow and all(step.right for step in steps) else None


def _overlap(one: _Span, other: _Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


@functools.lru_cache(maxsize=16)
def _phrases(keywords: tuple[str, ...], scoring: Scoring) -> _Phrases:
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for word in keywords:
        if units := tuple(scoring.units(word)):
            found.setdefault(units[0], {})[scoring.normalised(word)] = units
    return {first: tuple(some.items()) for first, some in found.items()}


def _occurrences(words: Sequence[str], phrases: _Phrases) -> dict[str, list[_Span]]:
    found: dict[str, list[_Span]] = {}
    for name, span in _matches(words, phrases):
        if name not in found or found[name][-1][1] <= span[0]:
            found.setdefault(name, []).append(span)
    return found


def _matches(words: Sequence[str], phrases: _Phrases) -> Iterator[tuple[str, _Span]]:
    for start, word in enumerate(words):
        for name, units in phrases.get(word, ()):
            if tuple(words[start : start + len(units)]) == units:
                yield name, (start, start + len(units))
