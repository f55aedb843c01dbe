"""transformers' own `generate`, eager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from quantlab.config import RunConfig
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
    options: dict[str, Any]  # of `generate`

    def generate(self, mel: npt.NDArray[np.float32]) -> tuple[list[list[int]], float]:
        """Decode one batch.

        Args:
            mel: log-mel features, float32, (utterances, mel bins, frames).

        Returns:
            The generated token ids of each utterance, without prompt, end token and padding; and the wall
            seconds of `generate` alone: the features are on the device before, the tokens fetched after.
        """
        features = torch.from_numpy(np.array(mel)).to(self.device, self.model.dtype)
        watch = Stopwatch(self.device)
        with watch.running():  # generate is under no_grad by itself; quanto's int4 cannot run in inference_mode
            tokens = self.model.generate(features, **self.options)
        end = self.model.generation_config.eos_token_id
        return [_until(end, row) for row in tokens.cpu().tolist()], watch.seconds


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
    return Engine(model, device, config.protocol.batch_size, limit, options)
