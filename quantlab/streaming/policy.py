"""Policies: what is on the screen after each hypothesis, and how much of it is final.

Words are compared as they are written, with case and punctuation, since that is what a reader sees change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

from quantlab.config.streaming import StreamingConfig
from quantlab.util.errors import ConfigError

Words = tuple[str, ...]
ROUNDING = 1e-9  # seconds, or chunks


@dataclass(frozen=True)
class Screen:
    """The words that are shown, of which the first ones are final."""

    words: Words
    final: int


class Policy(Protocol):
    """A policy for one utterance; it is asked what to decode, and told the hypothesis."""

    @property
    def begin(self) -> int:
        """Number of the first chunk to decode, from 0."""

    @property
    def room(self) -> int | None:
        """How many chunks the next hypothesis may add; None: any number."""

    def update(self, words: Sequence[str], heard: int, last: bool) -> Screen:
        """Take a hypothesis.

        Args:
            words: hypothesis of the audio from `begin` on.
            heard: number of chunks heard, from the start of the utterance.
            last: whether the utterance has ended: all words become final.
        """


@dataclass
class LocalAgreement:
    """Words are final once the last `agreement` hypotheses agree on them; every hypothesis is of all audio so far.

    Source: Macháček, Dabre, Bojar, "Turning Whisper into Real-Time Transcription System" (IJCNLP-AACL 2023), section
    3. There the words of a hypothesis that are already final are found by their timestamps; here, as not every engine
    has them, by alignment (`continuation`).
    """

    agreement: int
    begin: int = 0
    room: int | None = None
    _final: list[str] = field(default_factory=list)
    _after: deque[Words] = field(default_factory=deque)  # of the last hypotheses, the words after the final ones

    def update(self, words: Sequence[str], heard: int, last: bool) -> Screen:
        """See `Policy`."""
        self._after.append(continuation(self._final, words))
        if len(self._after) == self.agreement:
            agreed = len(common_prefix(self._after))
            self._final += self._after[-1][:agreed]
            self._after = deque(after[agreed:] for after in self._after)
        shown = (*self._final, *self._after[-1])
        if len(self._after) == self.agreement:
            self._after.popleft()
        return Screen(shown, len(shown) if last else len(self._final))


@dataclass
class SlidingWindow:
    """The text of a window is replaced until the window is full; then it is final, and the window moves on.

    Source: examples/stream/stream.cpp of whisper.cpp 1.8 with a fixed step, which Andreyev measures (arXiv 2503.09905).
    """

    chunks: int  # of a full window
    begin: int = 0
    _heard: int = 0
    _lines: Words = ()  # text of the windows before

    @property
    def room(self) -> int | None:
        """See `Policy`."""
        return self.begin + self.chunks - self._heard

    def update(self, words: Sequence[str], heard: int, last: bool) -> Screen:
        """See `Policy`."""
        shown, self._heard = (*self._lines, *words), heard
        if not last and self.room:
            return Screen(shown, len(self._lines))
        self._lines, self.begin = shown, heard
        return Screen(shown, len(shown))


def policy_of(config: StreamingConfig, window_s: float) -> Policy:
    """The policy of a configuration, for one utterance.

    Args:
        config: with a policy.
        window_s: length of the window if the configuration does not say.
    """
    if config.policy == "local_agreement":
        return LocalAgreement(config.agreement)
    return SlidingWindow(_chunks(config, window_s))


def _chunks(config: StreamingConfig, window_s: float) -> int:
    """How many chunks a full window has: one less than fit, as in whisper.cpp, which leaves room for what is kept."""
    return max(1, int((config.window_s or window_s) / config.chunk_s + ROUNDING) - 1)


def check_window(config: StreamingConfig, window_s: float) -> None:
    """Check that the model's window holds what a policy decodes at once.

    Raises:
        ConfigError: it does not.
    """
    if config.policy != "sliding_window":
        return  # longer utterances are not measured at all
    if config.window_s is not None and config.window_s > window_s:
        raise ConfigError(
            f"runtime.streaming.window_s={config.window_s:g}: the model's window is {window_s:g} s: set at most that"
        )
    longest_s = _chunks(config, window_s) * config.chunk_s + config.keep_s
    if longest_s > window_s + ROUNDING:
        raise ConfigError(
            f"runtime.streaming: chunk_s={config.chunk_s:g} and keep_s={config.keep_s:g} are {longest_s:g} s together, "
            f"and the model's window is {window_s:g} s: set a shorter chunk_s"
        )


def common_prefix(texts: Sequence[Sequence[str]]) -> Words:
    """The longest common prefix."""
    same = takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return tuple(column[0] for column in same)


def continuation(final: Sequence[str], words: Sequence[str]) -> Words:
    """The words of a hypothesis that follow the final ones.

    The part of it that stands for the final words is the prefix with the smallest edit distance to them; of several the
    longest, so that no word is written twice.
    """
    distances = list(range(len(words) + 1))  # of the first 0, 1, … words of the hypothesis to no final word
    for row, spoken in enumerate(final, start=1):
        diagonal, distances[0] = distances[0], row
        for column, word in enumerate(words, start=1):
            cost = min(diagonal + (word != spoken), distances[column] + 1, distances[column - 1] + 1)
            diagonal, distances[column] = distances[column], cost
    best = min(distances)
    return tuple(words[max(place for place, distance in enumerate(distances) if distance == best) :])
