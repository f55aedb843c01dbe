"""Whatever libsndfile reads, as what a Whisper hears: float32, mono, 16 kHz."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from quantlab.data.corpus import Audio

SAMPLE_RATE = 16_000  # Hz
UNKNOWN_LENGTH = 2**62  # frames; libsndfile gives 2**63 - 1 for a stream that does not tell


class UnreadableAudioError(ValueError):
    """No samples to be had; the message says why."""


class TooLongError(ValueError):
    """More audio than the model's window holds."""


@dataclass(frozen=True)
class Clip:
    samples: npt.NDArray[np.float32]  # (samples,), mono, 16 kHz
    seconds: float  # of the audio as it was stored


def decode(audio: Audio, window_s: float) -> Clip:
    """Read one clip, average its channels and resample it.

    No more than the window is ever held in memory.

    Raises:
        UnreadableAudioError: missing, corrupt, truncated or empty; or a sample is NaN or infinite.
        TooLongError: longer than `window_s` seconds.
    """
    try:
        source = audio()
        with soundfile.SoundFile(source if isinstance(source, Path) else io.BytesIO(source)) as file:
            frames, rate = _read(file, window_s)
    except (soundfile.SoundFileError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UnreadableAudioError | TooLongError):
            raise
        raise UnreadableAudioError(_reason(error)) from error
    mono = np.ascontiguousarray(frames.mean(axis=1, dtype=np.float32))
    samples = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
    if len(samples) == 0:
        raise UnreadableAudioError(f"no samples at {SAMPLE_RATE} Hz: {len(mono)} samples at {rate} Hz")
    if not np.isfinite(samples).all():
        raise UnreadableAudioError("NaN or infinite samples")
    return Clip(samples.astype(np.float32, copy=False), len(mono) / rate)


def _read(file: soundfile.SoundFile, window_s: float) -> tuple[npt.NDArray[np.float32], int]:
    most = int(window_s * file.samplerate)
    frames = file.read(most + 1, dtype="float32", always_2d=True)
    if len(frames) > most:
        raise TooLongError(_length(file, window_s))
    if len(frames) == 0:
        raise UnreadableAudioError("no samples")
    # MPEG files without a length header only estimate theirs
    if len(frames) < file.frames < UNKNOWN_LENGTH and file.format != "MPEG":
        raise UnreadableAudioError(f"truncated: {len(frames)} of {file.frames} frames")
    return frames, file.samplerate


def _length(file: soundfile.SoundFile, window_s: float) -> str:
    known = file.frames < UNKNOWN_LENGTH
    length = f"{file.frames / file.samplerate:.2f} s" if known else f"more than {window_s:g} s"
    return f"{length}; the model's window is {window_s:g} s"


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # the prefix names the file or the buffer, which the report names better
    return str(getattr(error, "error_string", "") or error).strip() or type(error).__name__
