"""transformers' own `generate`, eager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from quantlab.config import RunConfig
from quantlab.data import Mel
from quantlab.measure import Stopwatch

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

PROMPT_TOKENS = 4  # <|startoftranscript|> <|language|> <|task|> <|notimestamps|>


@dataclass(frozen=True)
class Engine:
    """A model on its device and how it is asked to decode."""

    model: WhisperForConditionalGeneration  # quantized or not
    device: torch.device
    batch_size: int  # utterances
    max_new_tokens: int
    forced_tokens: int  # per utterance, where the work is fixed
    options: dict[str, Any]  # of `generate`

    def generate(self, mel: Mel) -> tuple[list[list[int]], float]:
        """Decode one batch.

        Args:
            mel: log-mel features, float32, (utterances, mel bins, frames).

        Returns:
            The generated token ids of each utterance, without prompt, end token and padding; and the wall
            seconds of `generate` alone: the features are on the device before, the tokens fetched after.
        """
        features = self._features(mel)
        watch = Stopwatch(self.device)
        with watch.running():  # generate is under no_grad by itself; quanto's int4 cannot run in inference_mode
            tokens = self.model.generate(features, **self.options)
        end = self.model.generation_config.eos_token_id
        return [_until(end, row) for row in tokens.cpu().tolist()], watch.seconds

    def encode(self, mel: Mel) -> float:
        """Wall seconds of the encoder alone, for features as `generate` takes them."""
        features = self._features(mel)
        watch = Stopwatch(self.device)
        with torch.no_grad(), watch.running():
            self.model.get_encoder()(features)
        return watch.seconds

    def decode(self, mel: Mel) -> float:
        """Wall seconds of decoding `forced_tokens` for each utterance, end token or not; the encoder ran before."""
        with torch.no_grad():
            heard = self.model.get_encoder()(self._features(mel))
        forced = self.options | {"min_new_tokens": self.forced_tokens, "max_new_tokens": self.forced_tokens}
        watch = Stopwatch(self.device)
        with watch.running():
            self.model.generate(encoder_outputs=heard, **forced)
        return watch.seconds

    def _features(self, mel: Mel) -> torch.Tensor:
        return torch.from_numpy(np.array(mel)).to(self.device, self.model.dtype)


def _until(end: int | list[int], row: list[int]) -> list[int]:
    ends = set(end) if isinstance(end, list) else {end}
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]


def engine(model: WhisperForConditionalGeneration, device: torch.device, config: RunConfig) -> Engine:
    """How this cell decodes; random weights generate a fixed number of tokens."""
    positions = int(model.config.max_target_positions) - PROMPT_TOKENS
    limit = min(config.protocol.max_new_tokens or positions, positions)
    options: dict[str, Any] = {"num_beams": config.protocol.num_beams, "do_sample": False}
    if config.model.weights == "random":
        limit = min(config.model.random_tokens, positions)
        options["min_new_tokens"] = limit
    options["max_new_tokens"] = limit
    if getattr(model.generation_config, "is_multilingual", False):
        options |= {"language": config.dataset.language, "task": "transcribe"}
    forced = min(config.protocol.forced_tokens, positions)
    return Engine(model, device, config.protocol.batch_size, limit, forced, options)
