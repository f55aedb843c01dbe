"""Decoding engines: log-mel features in, token ids and elapsed time out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from quantlab.config.schema import RunConfig
from quantlab.data import SplitFeatures
from quantlab.models.decoding import Decoding, LongForm
from quantlab.models.tokens import Times, check_language, check_times
from quantlab.records.schema import EngineStages

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

PROMPT_TOKENS = 4  # <|startoftranscript|> <|language|> <|task|> <|notimestamps|>


class Passages(list[int]):
    """Token ids of a whole recording that are its text, and what was generated to find them."""

    def __init__(self, kept: Iterable[int], windows: Sequence[Sequence[int]]) -> None:
        super().__init__(kept)
        self.windows = windows  # token ids of each, those that a later window replaced included


def windows_of(row: list[int]) -> Sequence[Sequence[int]]:
    """What was generated for an utterance, by window."""
    return row.windows if isinstance(row, Passages) else [row]


class Engine(Protocol):
    """A model on its device, ready to decode.

    A method's seconds are wall time of the model's work alone, the device synchronised on both sides: features are
    on the device before, tokens are fetched after.
    """

    @property
    def decoding(self) -> Decoding:
        """How it was asked to decode."""

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """Decode one batch.

        Returns:
            The generated token ids of each utterance, in the checkpoint's own numbering, without prompt, end token
            and padding, `Passages` where it is a recording of several windows; and the seconds.
        """

    def encode(self, speech: SplitFeatures) -> float:
        """Seconds of the encoder alone."""

    def decode(self, speech: SplitFeatures) -> float:
        """Seconds of decoding `forced_tokens` for each utterance, end token or not; the encoder ran before."""


@runtime_checkable
class KeepsClocks(Protocol):
    """An engine that times its own stages."""

    def reset_stage_times(self) -> None:
        """Set the clocks to zero, but for that of loading."""

    def stage_times(self) -> EngineStages:
        """What they have added up since then."""


def decoding(model: WhisperForConditionalGeneration, config: RunConfig) -> Decoding:
    """How this cell decodes; random weights generate a fixed number of tokens.

    Args:
        model: whose positions and special tokens count; quantized or not.
        config: of the cell.

    Raises:
        UnsupportedError: the model does not know the corpus's language, or has no timestamps that should lead it.
    """
    tokens: Any = model.generation_config  # see models.tokens
    long_form = _long_form(config)
    most = int(model.config.max_target_positions)
    positions = most - PROMPT_TOKENS
    if long_form is not None:
        shape = model.config
        times = Times.of(tokens.no_timestamps_token_id, shape.vocab_size, shape.max_source_positions)
        check_times(times, f"model {config.model.label}")
        positions -= most // 2 if long_form.condition_on_prev_tokens else 0  # the text before takes half
    random = config.model.weights == "random"
    limit = min(config.model.random_tokens if random else config.protocol.max_new_tokens or positions, positions)
    known = tokens.lang_to_id if getattr(tokens, "is_multilingual", False) else {}
    check_language([name.strip("<|>") for name in known], config.dataset.language, f"model {config.model.label}")
    language = config.dataset.language if known else None
    return Decoding(
        batch_size=config.protocol.batch_size,
        max_new_tokens=limit,
        min_new_tokens=limit if random else 0,
        forced_tokens=min(config.protocol.forced_tokens, positions),
        num_beams=config.protocol.num_beams,
        audio_ctx=config.runtime.audio_ctx,
        language=language,
        prompt=_prompt(tokens, language, times=long_form is not None),
        end=tokens.eos_token_id,
        suppressed=tuple(tokens.suppress_tokens or ()),
        suppressed_first=tuple(tokens.begin_suppress_tokens or ()),
        long_form=long_form,
    )


def _long_form(config: RunConfig) -> LongForm | None:
    if config.dataset.long != "sequential":
        return None
    return LongForm(config.protocol.fallbacks, config.protocol.condition_on_prev_tokens)


def _prompt(tokens: Any, language: str | None, times: bool) -> tuple[int, ...]:
    """What `generate` of transformers starts from: the start, language and task where there are several, no times."""
    found = [tokens.decoder_start_token_id]
    if language is not None:
        found += [tokens.lang_to_id[f"<|{language}|>"], tokens.task_to_id["transcribe"]]
    no_times = getattr(tokens, "no_timestamps_token_id", None)
    return tuple(found if no_times is None or times else [*found, no_times])
