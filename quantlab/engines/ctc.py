"""CTC: one pass over an utterance of any length; the best token of each frame, without repetitions and blanks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from quantlab.data import SplitFeatures
from quantlab.engines.clocks import Stopwatch
from quantlab.engines.lengths import Inputs, inputs_on, lengths_of
from quantlab.models.decoding import Decoding


@dataclass(frozen=True)
class CTC:
    """A transformers model on its device."""

    model: Any  # Wav2Vec2ForCTC, HubertForCTC or ParakeetForCTC, quantized or not
    device: torch.device
    decoding: Decoding

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """See `Engine`; a decoding step is a frame."""
        inputs = inputs_on(self.model, self.device, speech)
        watch = Stopwatch(self.device)
        with lengths_of(self.model, inputs), torch.no_grad(), watch.running():
            best = self.model(inputs.values, attention_mask=inputs.mask).logits.argmax(dim=-1)
        frames = self._frames(inputs)
        rows = best.cpu().tolist()
        return [
            collapsed(row[:count], self.decoding.end) for row, count in zip(rows, frames, strict=True)
        ], watch.seconds

    def encode(self, speech: SplitFeatures) -> float:
        """See `Engine`: all but the output projection."""
        inputs = inputs_on(self.model, self.device, speech)
        watch = Stopwatch(self.device)
        with lengths_of(self.model, inputs), torch.no_grad(), watch.running():
            encoder_of(self.model)(inputs.values, attention_mask=inputs.mask)
        return watch.seconds

    def decode(self, speech: SplitFeatures) -> float:
        """Nothing is decoded token by token.

        Raises:
            NotImplementedError: always; `Decoding.forced_tokens` is 0.
        """
        raise NotImplementedError("CTC has no decoding step of fixed length")

    def _frames(self, inputs: Inputs) -> Sequence[int]:
        """Frames of each utterance that the model outputs, without those of padding."""
        parakeet = hasattr(self.model, "_get_subsampling_output_length")
        count = self.model._get_subsampling_output_length if parakeet else self.model._get_feat_extract_output_lengths
        return [int(frames) for frames in count(inputs.lengths)]


def encoder_of(model: Any) -> Any:
    """The model below its output projection."""
    return model.encoder if hasattr(model, "encoder") else getattr(model, model.base_model_prefix)


def collapsed(row: Sequence[int], blank: int) -> list[int]:
    """The tokens of a row of frames: one for each run of equal ones, without blanks."""
    return [token for token, _ in groupby(row) if token != blank]
