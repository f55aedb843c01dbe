"""Whatever libsndfile reads, as what a Whisper hears: float32, mono, 16 kHz."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from quantlab.data.corpus import Audio

SAMPLE_RATE = 16_000  # Hz
UNKNOWN_LENGTH = 2**62  # frames; libsndfile gives 2**63 - 1 for a stream that does not tell
UNKNOWN_BYTES = 2**31 - 1  # a WAV that was piped declares this or more
CUT_WAV = re.compile(r"^data\s*: (\d+) \(should be (\d+)\)", re.M)  # libsndfile reads what is left, and logs it


class UnreadableAudioError(ValueError):
    """No samples to be had; the message says why."""


class TooLongError(ValueError):
    """More audio than the model's window holds."""


@dataclass(frozen=True)
class Clip:
    samples: npt.NDArray[np.float32]  # (samples,), mono, 16 kHz
    seconds: float  # of the audio as it was stored


def decode(audio: Audio, window_s: float | None) -> Clip:
    """Read one clip, average its channels and resample it.

    No more than the window is ever held in memory.

    Args:
        audio: where it is.
        window_s: the most seconds that are wanted; null takes whatever there is, at 64 kB a second.

    Raises:
        UnreadableAudioError: missing, corrupt, truncated or empty; or a sample is NaN or infinite.
        TooLongError: longer than `window_s` seconds.
    """
    return _clip(audio, lambda file: _read(file, window_s))


def excerpt(audio: Audio, samples: int, place: float) -> npt.NDArray[np.float32]:
    """So many samples at 16 kHz, mono, from somewhere in a recording; a shorter one is repeated.

    Args:
        audio: where it is.
        samples: how many.
        place: where the excerpt lies, from 0 (at the start) to 1 (at the end).

    Raises:
        UnreadableAudioError: see `decode`.
    """
    clip = _clip(audio, lambda file: _read_part(file, samples / SAMPLE_RATE, place))
    return np.resize(clip.samples, samples)


def _clip(audio: Audio, read: Callable[[soundfile.SoundFile], npt.NDArray[np.float32]]) -> Clip:
    try:
        with _open(audio) as file:
            frames, rate = read(file), file.samplerate
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise UnreadableAudioError(_reason(error)) from error
    if not np.isfinite(frames).all():
        raise UnreadableAudioError("NaN or infinite samples")
    mono = np.ascontiguousarray(frames.mean(axis=1, dtype=np.float32))
    samples = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
    if len(samples) == 0:
        raise UnreadableAudioError(f"no samples at {SAMPLE_RATE} Hz: {len(mono)} at {rate} Hz")
    return Clip(samples, len(mono) / rate)


def _open(audio: Audio) -> soundfile.SoundFile:
    source = audio()
    if isinstance(source, bytes):
        return soundfile.SoundFile(io.BytesIO(source))
    if not source.is_file():
        raise UnreadableAudioError("no such file")
    return soundfile.SoundFile(source)


def _read_part(file: soundfile.SoundFile, seconds: float, place: float) -> npt.NDArray[np.float32]:
    wanted = math.ceil(seconds * file.samplerate) + 1
    if wanted < file.frames < UNKNOWN_LENGTH:
        file.seek(round(place * (file.frames - wanted)))
    frames: npt.NDArray[np.float32] = file.read(wanted, dtype="float32", always_2d=True)
    if len(frames) == 0:
        raise UnreadableAudioError("no samples")
    return frames


def _read(file: soundfile.SoundFile, window_s: float | None) -> npt.NDArray[np.float32]:
    frames: npt.NDArray[np.float32]
    if window_s is None:
        frames = file.read(dtype="float32", always_2d=True)
    else:
        most = int(window_s * file.samplerate)
        frames = file.read(most + 1, dtype="float32", always_2d=True)
        if len(frames) > most:
            raise TooLongError(_length(file, window_s))
    if len(frames) == 0:
        raise UnreadableAudioError("no samples")
    if len(frames) < file.frames < UNKNOWN_LENGTH:
        raise UnreadableAudioError(f"truncated: {len(frames)} of {file.frames} frames")
    cut = CUT_WAV.search(file.extra_info)
    if cut is not None and int(cut[2]) < int(cut[1]) < UNKNOWN_BYTES:
        raise UnreadableAudioError(f"truncated: {cut[2]} of {cut[1]} bytes of samples")
    return frames


def _length(file: soundfile.SoundFile, window_s: float) -> str:
    known = file.frames < UNKNOWN_LENGTH
    length = f"{file.frames / file.samplerate:.2f} s" if known else f"more than {window_s:g} s"
    return f"{length}; the model's window is {window_s:g} s"


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        # without the prefix, which names the file or the buffer; what is no audio at all goes through every
        # decoder, and the last one says that the file does not exist
        text = str(error.error_string)
        return "format not recognised" if "does not exist" in text else text
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
