"""How utterances are decoded: where it starts and ends, how long it may become, and what never comes."""

from __future__ import annotations

from dataclasses import dataclass

from quantlab.config.types import AudioContext


@dataclass(frozen=True)
class LongForm:
    """What there is to choose where the model's own timestamps lead through a recording."""

    fallbacks: bool
    condition_on_prev_tokens: bool


@dataclass(frozen=True)
class Decoding:
    """How utterances are decoded, whatever decodes them; greedy unless `num_beams` says otherwise."""

    batch_size: int  # utterances
    max_new_tokens: int
    min_new_tokens: int  # as many as may come, where weights are random and no end can be expected; else 0
    forced_tokens: int  # per utterance, where the work is fixed
    num_beams: int
    audio_ctx: AudioContext  # what the encoder is given: the whole window, or only as much as holds audio
    language: str | None  # null: the model knows one language
    prompt: tuple[int, ...]  # token ids that decoding starts from
    end: int  # token id
    suppressed: tuple[int, ...]  # token ids that never come
    suppressed_first: tuple[int, ...]  # token ids that do not come first
    long_form: LongForm | None = None  # null: what is heard is one window
