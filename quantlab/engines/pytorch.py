"""Eager engine: transformers' `generate`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from quantlab.data import Mel, SplitFeatures
from quantlab.engines import long_form
from quantlab.engines.alignment import positions_in, token_times
from quantlab.engines.clocks import Stopwatch
from quantlab.models.decoding import Decoding, LongForm

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

POSITIONS_PER_S = 50  # encoder positions: one frame per 10 ms, and a convolution of stride 2
POSITIONS_STEP = 8  # so that utterances of similar length have the same shapes


@dataclass(frozen=True)
class Eager:
    """A transformers model on its device."""

    model: WhisperForConditionalGeneration  # quantized or not
    device: torch.device
    decoding: Decoding

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """See `Engine`."""
        if self.decoding.long_form is not None:
            return self._decode_long_form(speech, self.decoding.long_form)
        features = features_on(self.model, self.device, speech.mel)
        options = generate_options(self.decoding, self.decoding.min_new_tokens, self.decoding.max_new_tokens)
        watch = Stopwatch(self.device)
        # generate uses no_grad itself; quanto's int4 cannot run in inference_mode
        with self._encoder_input(features, speech) as inputs, watch.running():
            tokens = self.model.generate(inputs, **options)
        return [until_end(self.decoding.end, row) for row in tokens.cpu().tolist()], watch.seconds

    def _decode_long_form(self, speech: SplitFeatures, how: LongForm) -> tuple[list[list[int]], float]:
        """Decode whole recordings by the model's timestamps."""
        mel, frames = long_form.whole(speech, self.model)
        features = features_on(self.model, self.device, mel)
        options = generate_options(self.decoding, 0, self.decoding.max_new_tokens) | long_form.options(how)
        watch = Stopwatch(self.device)
        with watch.running():
            found = self.model.generate(features, attention_mask=long_form.mask(frames, self.device), **options)
        return [long_form.passages(segments, self.decoding.end) for segments in found["segments"]], watch.seconds

    def encode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        features = features_on(self.model, self.device, speech.every_row)
        watch = Stopwatch(self.device)
        with self._encoder_input(features, speech) as inputs, torch.no_grad(), watch.running():
            for rows in inputs.split(len(speech.ids)):  # several for whole recordings
                self.model.get_encoder()(rows)
        return watch.seconds

    def decode(self, speech: SplitFeatures) -> float:
        """See `Engine`; for whole recordings only the first window."""
        features = features_on(self.model, self.device, speech.mel)
        options = generate_options(self.decoding, self.decoding.forced_tokens, self.decoding.forced_tokens)
        watch = Stopwatch(self.device)
        with self._encoder_input(features, speech) as inputs:
            with torch.no_grad():
                encoded = self.model.get_encoder()(inputs)
            with watch.running():
                # a single window: two timestamps would make transformers start another one
                self.model.generate(encoder_outputs=encoded, force_unique_generate_call=True, **options)
        return watch.seconds

    def align(self, speech: SplitFeatures, rows: Sequence[Sequence[int]]) -> tuple[list[list[float]], float]:
        """See `TimesWords`."""
        features = features_on(self.model, self.device, speech.mel)
        watch = Stopwatch(self.device)
        with self._encoder_input(features, speech) as inputs, torch.no_grad(), watch.running():
            encoded = self.model.get_encoder()(inputs).last_hidden_state
            found = token_times(self.model, encoded, rows, positions_in(speech), self.decoding)
        return found, watch.seconds

    @contextlib.contextmanager
    def _encoder_input(self, features: torch.Tensor, speech: SplitFeatures) -> Iterator[torch.Tensor]:
        """Encoder input: the whole window, or only the frames of the longest utterance in the batch."""
        if self.decoding.audio_ctx == "full":
            yield features
            return
        positions = positions_of(max(speech.audio_s), int(self.model.config.max_source_positions))
        with _shorter_window(self.model, positions):
            yield features[:, :, : 2 * positions]


def positions_of(audio_s: float, most: int) -> int:
    """Encoder positions for a duration of audio, rounded up to POSITIONS_STEP, limited to the window."""
    return min(most, math.ceil(audio_s * POSITIONS_PER_S / POSITIONS_STEP) * POSITIONS_STEP)


@contextlib.contextmanager
def _shorter_window(model: Any, positions: int) -> Iterator[None]:
    """Within the block the encoder has only its first positions, as it accepts no other input length."""
    encoder = model.get_encoder()
    whole, most = encoder.embed_positions, encoder.config.max_source_positions
    encoder.embed_positions = nn.Embedding.from_pretrained(whole.weight[:positions])
    encoder.config.max_source_positions = positions
    try:
        yield
    finally:
        encoder.embed_positions = whole
        encoder.config.max_source_positions = most


def features_on(model: Any, device: torch.device, mel: Mel) -> torch.Tensor:
    """The features of a batch on the model's device and in its dtype, (utterances, mel bins, frames)."""
    return torch.from_numpy(np.array(mel)).to(device, model.dtype)


def generate_options(decoding: Decoding, least: int, most: int) -> dict[str, Any]:
    """Arguments of `generate`, from `least` to `most` tokens; for special tokens see `models.tokens`."""
    options: dict[str, Any] = {"num_beams": decoding.num_beams, "do_sample": False, "max_new_tokens": most}
    if least:
        options["min_new_tokens"] = least
    if decoding.language is not None:
        options |= {"language": decoding.language, "task": "transcribe"}
    return options


def until_end(end: int, row: list[int]) -> list[int]:
    """Token ids before the first end token."""
    return row[: row.index(end)] if end in row else row
