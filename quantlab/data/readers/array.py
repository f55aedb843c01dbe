"""Audio given as an array with a sampling rate, as `datasets` decodes it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from quantlab.data.audio import UnreadableAudioError


@dataclass(frozen=True)
class Array:
    """Audio samples held by the listing itself."""

    values: Any
    rate: Any  # Hz

    def __call__(self) -> bytes:
        return as_wav(self.values, self.rate)


def as_wav(values: Any, rate: Any, dtype: str | None = None) -> bytes:
    """A float32 WAV.

    Args:
        values: (samples,) or (channels, samples), between −1 and 1; or integers of 8, 16 or 32 bits.
        rate: Hz.
        dtype: dtype of the values, if they do not carry one.

    Raises:
        UnreadableAudioError: the values are not audio.
    """
    try:
        samples = np.asarray(values, dtype=dtype)
        hertz = int(rate)
    except (TypeError, ValueError, OverflowError):
        raise UnreadableAudioError(
            f"an array of numbers and a sampling rate expected, got sampling_rate={rate!r}"
        ) from None
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi" or not 0 < hertz == rate < 2**31:
        raise UnreadableAudioError(
            f"an array of {samples.ndim} dimensions, {samples.dtype}, at {rate!r} Hz is not audio"
        )
    if samples.dtype.kind == "i":
        if samples.dtype.itemsize > 4:
            raise UnreadableAudioError("integers of unknown width: expected numbers between -1 and 1")
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.astype(np.float32), hertz, format="WAV", subtype="FLOAT")
    return buffer.getvalue()
