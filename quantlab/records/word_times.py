"""When words were said: what a cell found, the truth where the corpus has it, and the errors of the one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field, model_validator

from quantlab.records.part import Count, Figure, Part, Share, Text

Signed = Annotated[float, Field(ge=-1e15, le=1e15)]
WrittenWord = tuple[Text, Figure, Figure]  # of a hypothesis: as written, start and end in seconds of the audio
SpokenWord = tuple[Text, Figure | None, Figure | None]  # of the truth; null where the corpus does not say
Matches = tuple[tuple[Count, Count], ...]  # places of equal words in the written and the spoken ones
Times = tuple[float, float]  # of one word in two systems, in seconds

_LIMITS_MS = (50, 100, 200)
_STEP_S = 1e-6  # far below a clock's resolution, above the rounding of a difference


class TimeErrors(Part):
    """Errors of the starts, or the ends, of matched words; an error is the found time minus the true one."""

    median_s: Figure  # of the absolute errors
    bias_s: Signed  # median of the errors: above 0, words are found late
    within_50ms: Share  # share of matched words whose absolute error is at most that
    within_100ms: Share
    within_200ms: Share


class WordTimes(Part):
    """Word times of one split against the truth or another cell's; counts leave out audio without speech."""

    written: Count  # words of the hypotheses with times
    spoken: Count | None = None  # words of the truth (or of the other cell) with times; null without it, as the rest
    matched: Count | None = None  # equal words, in an alignment of both texts, with times in both
    start: TimeErrors | None = None  # null without a match, as the next one
    end: TimeErrors | None = None

    @model_validator(mode="after")
    def _matches_are_words(self) -> WordTimes:
        if (self.spoken is None) != (self.matched is None):
            raise ValueError("spoken and matched words go together")
        if self.spoken is not None and (self.matched or 0) > min(self.written, self.spoken):
            raise ValueError(f"matched={self.matched} of {self.written} written and {self.spoken} spoken words")
        if (self.start is None) != (not self.matched) or (self.end is None) != (not self.matched):
            raise ValueError("there are errors of times exactly if there are matched words")
        return self


def compared(
    written: Iterable[Sequence[WrittenWord]],
    spoken: Iterable[Sequence[SpokenWord | WrittenWord] | None],
    matches: Iterable[Matches | None],
) -> WordTimes:
    """Compute the figures from the words of each utterance.

    Args:
        written: words that a cell found.
        spoken: words to compare with; None for an utterance whose true times are unknown.
        matches: places of equal words; None where `spoken` is.
    """
    starts, ends = list[Times](), list[Times]()
    count, known = 0, list[int]()
    for words, truth, pairs in zip(written, spoken, matches, strict=True):
        count += len(words)
        if truth is None:
            continue
        known.append(sum(start_s is not None for _, start_s, _ in truth))
        for mine, theirs in pairs or ():
            _, start_s, end_s = truth[theirs]
            if start_s is not None and end_s is not None:
                starts.append((words[mine][1], start_s))
                ends.append((words[mine][2], end_s))
    if not known:
        return WordTimes(written=count)
    return WordTimes(written=count, spoken=sum(known), matched=len(starts), start=_errors(starts), end=_errors(ends))


def _errors(times: Sequence[Times]) -> TimeErrors | None:
    if not times:
        return None
    errors = [found_s - true_s for found_s, true_s in times]
    within = {
        f"within_{limit}ms": sum(abs(error) <= limit / 1000 + _STEP_S for error in errors) / len(errors)
        for limit in _LIMITS_MS
    }
    return TimeErrors(median_s=statistics.median(map(abs, errors)), bias_s=statistics.median(errors), **within)
