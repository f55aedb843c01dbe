"""Scoring of utterances from decoded windows, and detection of missing passages in recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from quantlab.data import Features, joined_text
from quantlab.data.sound import FRAME_S, Sound, overlaps, sound
from quantlab.data.speech import SplitFeatures
from quantlab.engines import windows_of
from quantlab.records.schema import Problem, Utterance
from quantlab.scoring import score
from quantlab.scoring.keywords import with_keywords
from quantlab.scoring.score import Scoring
from quantlab.util.counted import counted

FEW = 0.5  # a window with less than this share of its expected words is reported
PASSAGE = 10  # least number of missing words, as any window may have a few less
_NAMED = 3  # windows listed by time


@dataclass(frozen=True)
class _Recording:
    """An utterance and its windows."""

    utterance: score.Reference
    windows: slice  # its positions among all windows
    starts_s: tuple[float, ...]
    shared_s: tuple[float, ...]  # overlap of each window with the one before
    sounds: tuple[Sound, ...]  # empty for a single window

    def problem(self, kind: Literal["cut off", "few words"], detail: str) -> Problem:
        """A problem of an utterance that stays in the figures."""
        return Problem(utterance=self.utterance.id, split=self.utterance.split, kind=kind, detail=detail, measured=True)


def scored(
    speech: Features,
    rows: Sequence[list[int]],
    texts: Sequence[str] | None,
    limit: int,
    scoring: Scoring,
    keywords: tuple[str, ...] | None = None,
) -> tuple[tuple[Utterance, ...], tuple[Problem, ...]]:
    """Texts and counts of all utterances in measured order, and problems such as windows with too few words.

    Args:
        speech: the measured utterances.
        rows: generated token ids of each window or whole recording.
        texts: text of each row; None for random weights.
        limit: the largest number of tokens that could have been generated for a window.
        scoring: how to compare.
        keywords: words whose occurrences are counted; None: none.
    """
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for item in _recordings(speech):
        own = None if texts is None else texts[item.windows]
        text = None if own is None else _joined(item, own, scoring)
        tokens = [window for row in rows[item.windows] for window in windows_of(row)]
        one = score.utterance(item.utterance, tokens, text, limit, scoring)
        utterances.append(with_keywords(one, keywords, scoring))
        if own is not None:
            problems += [*_cut_off(item, tokens, limit), *_too_few(item, own, scoring)]
    return tuple(utterances), tuple(problems)


def _recordings(speech: Features) -> Iterator[_Recording]:
    start = 0
    for name, split in speech.splits.items():
        for first, count in split.utterances():
            yield _recording(name, split, range(first, first + count), start)
            start += count


def _recording(name: str, split: SplitFeatures, own: range, start: int) -> _Recording:
    new_s = [split.new_s[row] for row in own]
    ends_s = accumulate(new_s)
    return _Recording(
        score.Reference(
            id=split.ids[own[0]],
            split=name,
            speaker=split.speakers[own[0]],
            audio_s=sum(new_s),
            reference=split.texts[own[0]],
        ),
        slice(start, start + len(own)),
        tuple(end_s - split.audio_s[row] for row, end_s in zip(own, ends_s, strict=True)),
        tuple(split.audio_s[row] - split.new_s[row] for row in own),
        tuple(sound(split, own)) if len(own) > 1 else (),
    )


def _joined(recording: _Recording, texts: Sequence[str], scoring: Scoring) -> str:
    shared = overlaps(recording.sounds, recording.shared_s) if any(recording.shared_s) else []
    return joined_text(texts, shared, scoring.language)


def _cut_off(recording: _Recording, tokens: Sequence[Sequence[int]], limit: int) -> Iterator[Problem]:
    """Windows whose text reached the token limit, except loops, which are counted separately."""
    count = sum(len(row) >= limit and not score.is_loop(row, limit) for row in tokens)
    if count:
        which = f"{count} of {len(tokens)} windows" if len(tokens) > 1 else "its text"
        yield recording.problem("cut off", f"{which} reached the limit of {limit} tokens (protocol.max_new_tokens)")


def _too_few(recording: _Recording, texts: Sequence[str], scoring: Scoring) -> Iterator[Problem]:
    """Windows whose text ends long before their sound does, as can happen without timestamps.

    The reference gives the expected number of words per second of sound.
    """
    units = len(scoring.units(recording.utterance.reference))
    new = zip(recording.sounds, recording.shared_s, strict=False)
    frames = sum(part[round(shared_s / FRAME_S) :].sum() for part, shared_s in new)
    found = []
    for text, part, start_s in zip(texts, recording.sounds, recording.starts_s, strict=False):
        words, expected = len(scoring.units(text)), units * part.sum() / max(frames, 1)
        if words < FEW * expected and expected - words >= PASSAGE:
            found.append(f"at {start_s:.0f} s {words} of about {expected:.0f}")
    if not found:
        return
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    yield recording.problem(
        "few words",
        f"far fewer {scoring.unit}s than the audio should contain in {len(found)} of {counted(len(texts), 'window')}: "
        f"{', '.join(found[:_NAMED])}{more}",
    )
