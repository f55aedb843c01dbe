"""Moonshine: an encoder and a decoder on samples of any length, by transformers' `generate`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from quantlab.data import SplitFeatures
from quantlab.engines.clocks import Stopwatch
from quantlab.engines.lengths import Inputs, inputs_on, lengths_of
from quantlab.engines.pytorch import generate_options, until_end
from quantlab.models.decoding import Decoding


@dataclass(frozen=True)
class Moonshine:
    """A transformers model on its device."""

    model: Any  # MoonshineForConditionalGeneration, quantized or not
    device: torch.device
    decoding: Decoding

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """See `Engine`."""
        watch = Stopwatch(self.device)
        options = generate_options(self.decoding, self.decoding.min_new_tokens, self.decoding.max_new_tokens)
        with self._inputs(speech) as inputs, watch.running():
            tokens = self.model.generate(inputs.values, attention_mask=inputs.mask, **options)
        prompt = len(self.decoding.prompt)
        return [until_end(self.decoding.end, row[prompt:]) for row in tokens.cpu().tolist()], watch.seconds

    def encode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        watch = Stopwatch(self.device)
        with self._inputs(speech) as inputs, torch.no_grad(), watch.running():
            self.model.get_encoder()(inputs.values, attention_mask=inputs.mask)
        return watch.seconds

    def decode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        watch = Stopwatch(self.device)
        options = generate_options(self.decoding, self.decoding.forced_tokens, self.decoding.forced_tokens)
        with self._inputs(speech) as inputs:
            with torch.no_grad():
                encoded = self.model.get_encoder()(inputs.values, attention_mask=inputs.mask)
            with watch.running():
                self.model.generate(encoder_outputs=encoded, **options)
        return watch.seconds

    @contextlib.contextmanager
    def _inputs(self, speech: SplitFeatures) -> Iterator[Inputs]:
        inputs = encoder_inputs(self.model, inputs_on(self.model, self.device, speech))
        with lengths_of(self.model, inputs):
            yield inputs


def encoder_inputs(model: Any, inputs: Inputs) -> Inputs:
    """The inputs with the mask from which the encoder takes exactly the frames of each utterance.

    transformers takes every 384th value of the mask, and would count a frame too many, made of padding.
    """
    frames = torch.tensor([int(model._get_feat_extract_output_lengths(length)) for length in inputs.lengths.tolist()])
    stride = 64 * 3 * 2  # of the encoder's three convolutions
    until = stride * (frames - 1) + 1
    mask = torch.arange(inputs.mask.shape[1]) < until[:, None]
    return replace(inputs, mask=mask.to(inputs.mask.device))
