"""Sequential long-form decoding: the last timestamp of a window is the start of the next.

The procedure is transformers' `generate` for long audio (Radford et al., "Robust Speech Recognition via Large-Scale
Weak Supervision", section 4.5). This module prepares its input and reads its output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from quantlab.data import Mel, SplitFeatures
from quantlab.engines import Passages
from quantlab.models.decoding import LongForm

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

# Values of Whisper's model cards. The compression ratio is of token ids, not of text, so it is not OpenAI's 2.4.
FALLBACKS = {
    "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "compression_ratio_threshold": 1.35,
    "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6,
}


def whole(speech: SplitFeatures, model: WhisperForConditionalGeneration) -> tuple[Mel, list[int]]:
    """Features of whole recordings, padded to the longest, and the number of frames of each.

    Several recordings are padded to more than a window: otherwise transformers would decode the padding.
    """
    found = [speech.recording(position) for position in range(len(speech.ids))]
    frames = [mel.shape[1] for mel in found]
    longest = max(frames) if len(found) == 1 else max(*frames, 2 * int(model.config.max_source_positions) + 1)
    return np.stack([np.pad(mel, ((0, 0), (0, longest - mel.shape[1]))) for mel in found]), frames


def mask(frames: Sequence[int], device: torch.device) -> torch.Tensor:
    """Mask of frames without padding, (recordings, frames)."""
    positions = torch.arange(max(frames), device=device)
    return (positions < torch.tensor(frames, device=device)[:, None]).long()


def options(how: LongForm) -> dict[str, Any]:
    """Additional arguments of `generate` for long audio."""
    asked = {
        "return_timestamps": True,
        "return_segments": True,
        "condition_on_prev_tokens": how.condition_on_prev_tokens,
    }
    return asked | (FALLBACKS if how.fallbacks else {})


def passages(segments: Sequence[Mapping[str, Any]], end: int) -> Passages:
    """Collect the tokens of a recording from its segments; segments of one window share a result."""
    kept = [token for segment in segments for token in segment["tokens"].tolist()]
    first = {id(segment["result"]): segment for segment in reversed(segments)}  # of each window
    return Passages(kept, [_generated(segment, end) for segment in reversed(first.values())])


def _generated(first: Mapping[str, Any], end: int) -> list[int]:
    """All tokens generated for a window, given its first segment."""
    result = first["result"]
    sequence = result if isinstance(result, torch.Tensor) else result["sequences"]
    tokens: list[int] = sequence[first["idxs"][0] :].tolist()
    return tokens[: tokens.index(end)] if end in tokens else tokens
