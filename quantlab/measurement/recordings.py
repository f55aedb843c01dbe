"""Scored utterances from decoded windows, and recordings with missing passages."""

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
from quantlab.scoring.score import Scoring

FEW = 0.5  # of the words that a window's sound should hold
PASSAGE = 10  # words at least that are missing, as any window may have a few less
_NAMED = 3  # windows, by their time


@dataclass(frozen=True)
class _Recording:
    """An utterance, and which windows are its own."""

    heard: score.Reference
    windows: slice  # of all that were measured
    starts_s: tuple[float, ...]
    shared_s: tuple[float, ...]  # of each, with the window before
    sounds: tuple[Sound, ...]  # none where there is one window

    def problem(self, kind: Literal["cut off", "few words"], detail: str) -> Problem:
        """It is in the figures all the same."""
        return Problem(utterance=self.heard.id, split=self.heard.split, kind=kind, detail=detail, measured=True)


def scored(
    speech: Features, rows: Sequence[list[int]], texts: Sequence[str] | None, limit: int, scoring: Scoring
) -> tuple[tuple[Utterance, ...], tuple[Problem, ...]]:
    """Text and counts of every utterance, in the order measured, and the utterances whose windows have too few words.

    Args:
        speech: what was measured.
        rows: token ids generated, of each window, or of a whole recording.
        texts: of each of them; None where weights are random.
        limit: the largest number of tokens that could have been generated for a window.
        scoring: how to compare.
    """
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for item in _recordings(speech):
        own = None if texts is None else texts[item.windows]
        text = None if own is None else _joined(item, own, scoring)
        tokens = [window for row in rows[item.windows] for window in windows_of(row)]
        utterances.append(score.utterance(item.heard, tokens, text, limit, scoring))
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
    """Windows whose text did not end before the limit; a loop would not have, and is counted as one."""
    count = sum(len(row) >= limit and not score.is_loop(row, limit) for row in tokens)
    if count:
        which = f"{count} of {len(tokens)} windows" if len(tokens) > 1 else "its text"
        yield recording.problem("cut off", f"{which} reached the limit of {limit} tokens (protocol.max_new_tokens)")


def _too_few(recording: _Recording, texts: Sequence[str], scoring: Scoring) -> Iterator[Problem]:
    """Windows whose text ends long before their sound does, as that of a model without timestamps may.

    How many words a second of sound holds is told by the reference.
    """
    said = len(scoring.units(recording.heard.reference))
    new = zip(recording.sounds, recording.shared_s, strict=False)
    frames = sum(part[round(shared_s / FRAME_S) :].sum() for part, shared_s in new)
    found = []
    for text, part, start_s in zip(texts, recording.sounds, recording.starts_s, strict=False):
        words, expected = len(scoring.units(text)), said * part.sum() / max(frames, 1)
        if words < FEW * expected and expected - words >= PASSAGE:
            found.append(f"at {start_s:.0f} s {words} of about {expected:.0f}")
    if not found:
        return
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    yield recording.problem(
        "few words",
        f"{len(found)} of {len(texts)} windows have far fewer {scoring.unit}s than their sound should hold: "
        f"{', '.join(found[:_NAMED])}{more}",
    )
