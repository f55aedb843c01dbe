"""The virtual clock: which audio is decoded when.

Audio arrives in chunks at the pace of speech. A recogniser decodes what has arrived, and the seconds it takes move the
clock; what arrives meanwhile is taken together. Nothing waits for real, so a stream takes as long as its computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from quantlab.config.streaming import StreamingConfig
from quantlab.records.streams import Stream, Update
from quantlab.streaming.policy import ROUNDING, Screen, policy_of
from quantlab.util.languages import ErrorUnit


class Heard(NamedTuple):
    """A hypothesis and what it took."""

    text: str
    extract_s: float
    generate_s: float


class Shown(NamedTuple):
    """An update and what was on the screen after it."""

    update: Update
    screen: Screen


Recogniser = Callable[[float, float], Heard]  # decodes the audio from one second to another


def stream(
    audio_s: float, config: StreamingConfig, window_s: float, unit: ErrorUnit, listen: Recogniser
) -> Iterator[Shown]:
    """Decode an utterance while it is spoken.

    Args:
        audio_s: length of the utterance.
        config: chunks and policy.
        window_s: length of the model's window.
        unit: what a text is made of: words, or characters in languages without spaces.
        listen: the recogniser.

    Yields:
        Every update, in order.
    """
    policy = policy_of(config, window_s)
    chunks = max(1, math.ceil(audio_s / config.chunk_s - ROUNDING))  # the last one may be shorter

    def arrival_s(chunk: int) -> float:
        return audio_s if chunk >= chunks else chunk * config.chunk_s

    heard, now_s = 0, 0.0
    while heard < chunks:
        now_s = max(now_s, arrival_s(heard + 1))
        most = chunks if policy.room is None else min(chunks, heard + policy.room)
        arrived = chunks if now_s >= audio_s else int(now_s / config.chunk_s) + 1
        while arrival_s(arrived) > now_s:
            arrived -= 1
        heard = min(most, arrived)
        begin_s = max(0.0, arrival_s(policy.begin) - config.keep_s) if policy.begin else 0.0
        found = listen(begin_s, arrival_s(heard))
        update = Update(
            begin_s=begin_s,
            heard_s=arrival_s(heard),
            start_s=now_s,
            extract_s=found.extract_s,
            generate_s=found.generate_s,
            text=found.text,
        )
        now_s = update.end_s
        yield Shown(update, policy.update(split_text(found.text, unit), heard, last=heard == chunks))


def replay(found: Stream, config: StreamingConfig, unit: ErrorUnit) -> list[Shown]:
    """What a recorded stream showed, computed again from its texts and seconds.

    Raises:
        ValueError: it has more or fewer updates than audio and clock allow.
    """
    recorded = iter(found.updates)

    def listen(begin_s: float, end_s: float) -> Heard:
        if (update := next(recorded, None)) is None:
            raise ValueError(f"stream {found.split}/{found.id}: an update is missing after {len(found.updates)}")
        return Heard(update.text, update.extract_s, update.generate_s)

    shown = list(stream(found.audio_s, config, found.window_s, unit, listen))
    if next(recorded, None) is not None:
        raise ValueError(f"stream {found.split}/{found.id}: {len(found.updates)} updates, {len(shown)} fit its audio")
    return shown


def split_text(text: str, unit: ErrorUnit) -> list[str]:
    """The words of a text, or its characters."""
    words = text.split()
    return words if unit == "word" else list("".join(words))


def joined(screen: Screen, unit: ErrorUnit) -> str:
    """The text on a screen."""
    return (" " if unit == "word" else "").join(screen.words)
