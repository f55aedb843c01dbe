"""Log-mel features, stored as log10 power so that noise can be added later."""

import functools

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

MEL_BINS = 80
WINDOW_S = 6
HOP_SAMPLES = 160
MAX_FRAMES = 600  # WINDOW_S at 100 frames per second
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # decades below the loudest bin, as in Whisper


@functools.cache
def feature_extractor() -> WhisperFeatureExtractor:
    """Whisper's own extractor with a window of `WINDOW_S`."""
    return WhisperFeatureExtractor(feature_size=MEL_BINS, chunk_length=WINDOW_S)


@functools.cache
def _filters() -> torch.Tensor:
    return torch.tensor(feature_extractor().mel_filters, dtype=torch.float32).T.contiguous()


def log_power(samples: np.ndarray) -> np.ndarray:
    """log10 mel power, float16, shape (frames, 80); frame t is centred on sample 160 t.

    The same transform as `WhisperFeatureExtractor` before its clamp to the dynamic range.
    """
    return batched_log_power(torch.as_tensor(samples, dtype=torch.float32)).to(torch.float16).numpy()


def batched_log_power(samples: torch.Tensor) -> torch.Tensor:
    """As `log_power`, float32 (..., frames, 80), of float32 (..., samples)."""
    window = torch.hann_window(400)
    spectrum = torch.stft(samples, 400, HOP_SAMPLES, window=window, return_complex=True)
    power = _filters() @ spectrum[..., :-1].abs() ** 2
    return torch.log10(power.clamp(min=POWER_FLOOR)).transpose(-1, -2).contiguous()


def whisper_scale(log_mel: torch.Tensor) -> torch.Tensor:
    """Whisper's clamp to 8 decades below the maximum, and scaling; any shape."""
    return (torch.maximum(log_mel, log_mel.max() - DYNAMIC_RANGE) + 4.0) / 4.0
