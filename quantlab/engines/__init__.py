"""Decoding engines: features or samples in, token ids and elapsed time out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from quantlab.config.schema import RunConfig
from quantlab.config.types import MOST
from quantlab.data import SplitFeatures
from quantlab.models.decoding import Alignment, Decoding, LongForm
from quantlab.models.tokens import Times, check_language, check_times
from quantlab.records.schema import EngineStages

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

PROMPT_TOKENS = 4  # <|startoftranscript|> <|language|> <|task|> <|notimestamps|>


class Passages(list[int]):
    """Token ids of the text of a whole recording, with the tokens generated for each window."""

    def __init__(self, kept: Iterable[int], windows: Sequence[Sequence[int]]) -> None:
        super().__init__(kept)
        self.windows = windows  # token ids of each window, including those that a later window replaced


def windows_of(row: list[int]) -> Sequence[Sequence[int]]:
    """The token ids generated for an utterance, by window."""
    return row.windows if isinstance(row, Passages) else [row]


class Engine(Protocol):
    """A model on its device, ready to decode.

    Times are wall seconds of the model's work only, with the device synchronised on both sides: features are moved
    to the device before, and tokens fetched after.
    """

    @property
    def decoding(self) -> Decoding:
        """The decoding settings."""

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """Decode one batch.

        Returns:
            The generated token ids of each utterance, in the checkpoint's numbering, without prompt, end token
            and padding (`Passages` for a recording of several windows); and the seconds.
        """

    def encode(self, speech: SplitFeatures) -> float:
        """Run only the encoder; returns seconds."""

    def decode(self, speech: SplitFeatures) -> float:
        """Decode exactly `forced_tokens` per utterance; returns seconds without the encoder's."""


@runtime_checkable
class KeepsClocks(Protocol):
    """An engine that times its own stages."""

    def reset_stage_times(self) -> None:
        """Reset all clocks except that of loading."""

    def stage_times(self) -> EngineStages:
        """Times since the last reset."""


def decoding(model: Any, config: RunConfig) -> Decoding:
    """The decoding settings of a cell; random weights generate a fixed number of tokens.

    Args:
        model: the model, quantized or not, for its positions and special tokens.
        config: configuration of the cell.

    Raises:
        UnsupportedError: the model does not know the corpus's language, or lacks timestamps for sequential decoding.
    """
    if config.model.family == "whisper":
        return _of_whisper(model, config)
    return _of_moonshine(model, config) if config.model.family == "moonshine" else _of_ctc(model, config)


def _of_moonshine(model: Any, config: RunConfig) -> Decoding:
    tokens = model.generation_config
    prompt = (int(tokens.decoder_start_token_id),)
    stated = tokens.max_length  # null unless the checkpoint states it
    positions = int(model.config.max_position_embeddings if stated is None else stated) - len(prompt)
    random = config.model.weights == "random"
    limit = min(config.model.random_tokens if random else config.protocol.max_new_tokens or positions, positions)
    return _without_language(
        config,
        max_new_tokens=limit,
        min_new_tokens=limit if random else 0,
        forced_tokens=min(config.protocol.forced_tokens, positions),
        num_beams=config.protocol.num_beams,
        prompt=prompt,
        end=int(tokens.eos_token_id),
    )


def _of_ctc(model: Any, config: RunConfig) -> Decoding:
    """Without prompt and limit; the blank takes the place of the end token."""
    return _without_language(
        config, max_new_tokens=MOST, min_new_tokens=0, forced_tokens=0, num_beams=1, prompt=(),
        end=int(model.config.pad_token_id),
    )  # fmt: skip


def _without_language(config: RunConfig, **settings: Any) -> Decoding:
    return Decoding(
        batch_size=config.protocol.batch_size, audio_ctx="full", language=None, suppressed=(), suppressed_first=(),
        **settings,
    )  # fmt: skip


def _of_whisper(model: WhisperForConditionalGeneration, config: RunConfig) -> Decoding:
    tokens: Any = model.generation_config  # see models.tokens
    long_form = _long_form(config)
    most = int(model.config.max_target_positions)
    positions = most - PROMPT_TOKENS
    if long_form is not None:
        shape = model.config
        times = Times.of(tokens.no_timestamps_token_id, shape.vocab_size, shape.max_source_positions)
        check_times(times, f"model {config.model.label}")
        positions -= most // 2 if long_form.condition_on_prev_tokens else 0  # previous text takes half
    random = config.model.weights == "random"
    limit = min(config.model.random_tokens if random else config.protocol.max_new_tokens or positions, positions)
    known = tokens.lang_to_id if getattr(tokens, "is_multilingual", False) else {}
    check_language([name.strip("<|>") for name in known], config.dataset.language, f"model {config.model.label}")
    language = config.dataset.language if known else None
    prompt = _prompt(tokens, language, times=long_form is not None)
    return Decoding(
        batch_size=config.protocol.batch_size,
        max_new_tokens=limit,
        min_new_tokens=limit if random else 0,
        forced_tokens=min(config.protocol.forced_tokens, positions),
        num_beams=config.protocol.num_beams,
        audio_ctx=config.runtime.audio_ctx,
        language=language,
        prompt=prompt,
        end=tokens.eos_token_id,
        suppressed=tuple(tokens.suppress_tokens or ()),
        suppressed_first=tuple(tokens.begin_suppress_tokens or ()),
        long_form=long_form,
        alignment=_alignment(model, prompt) if config.runtime.word_times and not random else None,
    )


def _alignment(model: WhisperForConditionalGeneration, prompt: tuple[int, ...]) -> Alignment:
    """The checkpoint's alignment heads; without any, all of the upper half of the decoder, as in OpenAI's whisper."""
    shape: Any = model.config
    known = getattr(model.generation_config, "alignment_heads", None)
    upper = range(shape.decoder_layers // 2, shape.decoder_layers)
    heads = known or [(layer, head) for layer in upper for head in range(shape.decoder_attention_heads)]
    most = shape.max_target_positions - len(prompt) - 1  # the end token is given too
    return Alignment(tuple((layer, head) for layer, head in heads), most)


def _long_form(config: RunConfig) -> LongForm | None:
    if config.dataset.long != "sequential":
        return None
    return LongForm(config.protocol.fallbacks, config.protocol.condition_on_prev_tokens)


def _prompt(tokens: Any, language: str | None, times: bool) -> tuple[int, ...]:
    """The prompt of transformers' `generate`: start, language and task of a multilingual model, no timestamps."""
    found = [tokens.decoder_start_token_id]
    if language is not None:
        found += [tokens.lang_to_id[f"<|{language}|>"], tokens.task_to_id["transcribe"]]
    no_times = getattr(tokens, "no_timestamps_token_id", None)
    return tuple(found if no_times is None or times else [*found, no_times])
