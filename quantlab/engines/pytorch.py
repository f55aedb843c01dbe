"""transformers' own `generate`, eager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from quantlab.data import SplitFeatures
from quantlab.engines import Decoding
from quantlab.measure import Stopwatch

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


@dataclass(frozen=True)
class Eager:
    """A model of transformers, on its device."""

    model: WhisperForConditionalGeneration  # quantized or not
    device: torch.device
    decoding: Decoding

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """See `Engine`."""
        features = self._features(speech)
        options = self._options(self.decoding.min_new_tokens, self.decoding.max_new_tokens)
        watch = Stopwatch(self.device)
        with watch.running():  # generate is under no_grad by itself; quanto's int4 cannot run in inference_mode
            tokens = self.model.generate(features, **options)
        end = self.model.generation_config.eos_token_id
        return [_until(end, row) for row in tokens.cpu().tolist()], watch.seconds

    def encode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        features = self._features(speech)
        watch = Stopwatch(self.device)
        with torch.no_grad(), watch.running():
            self.model.get_encoder()(features)
        return watch.seconds

    def decode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        with torch.no_grad():
            heard = self.model.get_encoder()(self._features(speech))
        options = self._options(self.decoding.forced_tokens, self.decoding.forced_tokens)
        watch = Stopwatch(self.device)
        with watch.running():
            self.model.generate(encoder_outputs=heard, **options)
        return watch.seconds

    def _features(self, speech: SplitFeatures) -> torch.Tensor:
        return torch.from_numpy(np.array(speech.mel)).to(self.device, self.model.dtype)

    def _options(self, least: int, most: int) -> dict[str, Any]:
        """Of `generate`; what comes when is left to the model's own generation_config."""
        options: dict[str, Any] = {"num_beams": self.decoding.num_beams, "do_sample": False, "max_new_tokens": most}
        if least:
            options["min_new_tokens"] = least
        if self.decoding.language is not None:
            options |= {"language": self.decoding.language, "task": "transcribe"}
        return options


def _until(end: int | list[int], row: list[int]) -> list[int]:
    ends = set(end) if isinstance(end, list) else {end}
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]
