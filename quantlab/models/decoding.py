"""Decoding settings: prompt, end token, length limits and suppressed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantlab.config.types import AudioContext


@dataclass(frozen=True)
class LongForm:
    """Settings of sequential long-form decoding, guided by the model's timestamps."""

    fallbacks: bool
    condition_on_prev_tokens: bool


@dataclass(frozen=True)
class Alignment:
    """Settings of word times: the heads whose attention gives them, and the tokens that fit beside the prompt."""

    heads: tuple[tuple[int, int], ...]  # (layer, head) of the decoder
    most_tokens: int

    def fitting(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """The tokens that get times, of each utterance."""
        return [list(row[: self.most_tokens]) for row in rows]


@dataclass(frozen=True)
class Decoding:
    """Decoding settings, the same for every engine; greedy unless `num_beams` is set."""

    batch_size: int  # utterances
    max_new_tokens: int
    min_new_tokens: int  # equal to the maximum for random weights, which never end by themselves; else 0
    forced_tokens: int  # per utterance in fixed-length timing; 0: the model has no decoding step
    num_beams: int
    audio_ctx: AudioContext  # encoder input: the whole window, or only the frames with audio
    language: str | None  # None: a monolingual model
    prompt: tuple[int, ...]  # token ids that decoding starts from
    end: int  # token id
    suppressed: tuple[int, ...]  # token ids that are always suppressed
    suppressed_first: tuple[int, ...]  # token ids suppressed at the first position
    long_form: LongForm | None = None  # None: single windows
    alignment: Alignment | None = None  # None: no word times
