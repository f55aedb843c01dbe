"""Audio decoding: any format of libsndfile to float32, mono, 16 kHz."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from quantlab.data.level import Doubt, Meter
from quantlab.data.utterance import Audio, Part
from quantlab.data.wav import WrongSizeError, repaired
from quantlab.util.files import opened

Samples = npt.NDArray[np.float32]
SAMPLE_RATE = 16_000  # Hz
UNKNOWN_LENGTH = 2**62  # frames; libsndfile gives 2**63 - 1 for a stream of unknown length
UNKNOWN_BYTES = 2**31 - 2**20  # a WAV that was piped declares about 2 GB (SoX: 0x7ffff000) or more
NEGLIGIBLE_S = 0.01  # may be missing at the end of a file: some programs count the header as data
OVERHANG_S = 0.1  # tolerance for segments that end after the recording, and for stated lengths: times are rounded
LONGEST_S = 86_400.0  # most audio read at once
BLOCK_VALUES = 2**20  # samples per block, over all channels
CUT_WAV = re.compile(r"^data\s*: (\d+) \(should be (\d+)\)", re.M)  # libsndfile reads the rest, and logs this


class UnreadableAudioError(ValueError):
    """Audio that cannot be decoded; the message says why."""


class TooLongError(ValueError):
    """More audio than the model's window holds."""


@dataclass(frozen=True)
class Clip:
    samples: Samples  # (samples,), mono, 16 kHz
    seconds: float  # duration of the stored audio
    doubts: tuple[Doubt, ...] = ()  # problems of audio that can still be decoded


def decode(audio: Audio, part: Part, window_s: float | None) -> Clip:
    """Read one clip, average or select its channels, and resample it.

    At most one window is held in memory.

    Args:
        audio: location of the audio.
        part: the part to read.
        window_s: maximum length in seconds; None: any length, at 64 kB per second.

    Raises:
        UnreadableAudioError: missing, corrupt, truncated, empty, or different from its listing; or a sample is NaN or
            infinite.
        TooLongError: longer than `window_s` seconds.
    """
    with _open(audio) as file:
        _check_claims(file, part)
        first, last = _span(file, part)
        most = int((window_s or LONGEST_S) * file.samplerate)
        if last is not None and last - first > most:
            raise TooLongError(_too_long(f"{(last - first) / file.samplerate:.2f} s", window_s))
        meter = Meter(file.channels if part.channel is None else 1, file.samplerate, file.subtype)
        wanted = most + 1 if last is None else last - first
        mono = _mono(file, first, wanted, part.channel, meter)
        if last is None and len(mono) > most:
            known = f"{file.frames / file.samplerate:.2f} s"
            raise TooLongError(_too_long(known if file.frames < UNKNOWN_LENGTH else "more", window_s))
        _check_whole(file, part, first + len(mono), last)
        return _clip(mono, file.samplerate, meter.doubts())


def excerpt(audio: Audio, part: Part, samples: int, place: float) -> Samples:
    """Read a number of samples (16 kHz, mono) from a recording; a shorter recording is repeated.

    Args:
        audio: location of the audio.
        part: the part to read.
        samples: number of samples.
        place: position of the excerpt, from 0 (start) to 1 (end).

    Raises:
        UnreadableAudioError: see `decode`.
    """
    with _open(audio) as file:
        first, last = _span(file, part)
        wanted = math.ceil(samples / SAMPLE_RATE * file.samplerate) + 1
        end = file.frames if last is None else min(last, file.frames)
        if wanted < end - first < UNKNOWN_LENGTH:
            first += round(place * (end - first - wanted))
        mono = _mono(file, first, wanted if last is None else min(wanted, last - first), part.channel)
        clip = _clip(mono, file.samplerate)
    return np.resize(clip.samples, samples)


def length_s(audio: Audio, part: Part) -> float:
    """Length of the part in seconds, according to the header.

    Raises:
        UnreadableAudioError: see `decode`.
    """
    with _open(audio) as file:
        first, last = _span(file, part)
        return float(((file.frames if last is None else last) - first) / file.samplerate)


@contextlib.contextmanager
def _open(audio: Audio) -> Iterator[soundfile.SoundFile]:
    """Open audio; errors within the block become one-line UnreadableAudioErrors."""
    try:
        source = audio()
        with io.BytesIO(source) if isinstance(source, bytes) else opened(source) as raw:
            content = repaired(raw)
        if content is None:
            content = source if isinstance(source, bytes) else None
        with soundfile.SoundFile(source if content is None else io.BytesIO(content)) as file:
            yield file
    except (soundfile.SoundFileError, OSError, RuntimeError, WrongSizeError) as error:
        raise UnreadableAudioError(_reason(error)) from error


def _span(file: soundfile.SoundFile, part: Part) -> tuple[int, int | None]:
    """First frame of a part and the one after its last; None means the end of the file."""
    first = round(part.offset_s * file.samplerate)
    if first >= file.frames:
        starts, ends = f"{part.offset_s:.2f} s", f"{file.frames / file.samplerate:.2f} s"
        raise UnreadableAudioError(f"it starts at {starts}, the recording ends at {ends}" if first else "no samples")
    if part.duration_s is None:
        return first, None
    return first, first + max(1, round(part.duration_s * file.samplerate))


def _mono(
    file: soundfile.SoundFile, first: int, wanted: int, channel: int | None, meter: Meter | None = None
) -> Samples:
    """Read up to a number of frames as one channel, block by block to bound memory for many channels."""
    if channel is not None and channel >= file.channels:
        raise UnreadableAudioError(f"channel {channel} of {file.channels}: the first is channel 0")
    if first:
        file.seek(first)
    blocks = [np.zeros(0, np.float32)]
    size = Meter.frames(file.samplerate, max(1, BLOCK_VALUES // file.channels))
    while wanted > 0:
        frames = _block(file, min(size, wanted))
        if len(frames) == 0:
            break
        chosen = frames if channel is None else frames[:, channel : channel + 1]
        if not np.isfinite(chosen).all():
            raise UnreadableAudioError("NaN or infinite samples")
        mono = np.ascontiguousarray(chosen.mean(axis=1, dtype=np.float32))
        if meter is not None:
            meter.read(chosen, mono)
        blocks.append(mono)
        wanted -= len(frames)
    samples = np.concatenate(blocks)
    if len(samples) == 0:
        raise UnreadableAudioError("no samples")
    return samples


def _block(file: soundfile.SoundFile, count: int) -> Samples:
    """The next frames, (frames, channels); fewer at the end.

    For a piped FLAC of unknown length, soundfile reads the last frames and then fails to seek to their end. They are in
    the buffer, and the rest of the buffer is unchanged.
    """
    if file.frames < UNKNOWN_LENGTH:
        frames: Samples = file.read(count, dtype="float32", always_2d=True)
        return frames
    buffer = np.full((count, file.channels), np.nan, np.float32)
    try:
        return np.asarray(file.read(out=buffer, always_2d=True))
    except soundfile.LibsndfileError as error:
        if "psf_fseek" not in str(error.error_string):
            raise
        return buffer[: int(np.isfinite(buffer).all(axis=1).sum())]


def _check_claims(file: soundfile.SoundFile, part: Part) -> None:
    """Check the file against the values stated in its listing; if they differ, it is another file."""
    for what, stated, found in (
        ("Hz", part.rate, file.samplerate),
        ("channels", part.channels, file.channels),
        ("samples", part.frames, file.frames),
    ):
        if stated is not None and stated != found:
            raise UnreadableAudioError(f"the manifest says that it has {stated} {what}, but it has {found}")
    found_s = file.frames / file.samplerate
    if part.seconds is not None and abs(part.seconds - found_s) > OVERHANG_S:
        raise UnreadableAudioError(f"the manifest says that it has {part.seconds:.2f} s, and it has {found_s:.2f}")


def _check_whole(file: soundfile.SoundFile, part: Part, end: int, last: int | None) -> None:
    """Check that the file is not truncated; `end` is the frame after the last one read."""
    rate = file.samplerate
    if last is not None:
        if last - end > OVERHANG_S * rate:
            expected, ends = part.offset_s + (part.duration_s or 0), end / rate
            raise UnreadableAudioError(f"it ends at {expected:.2f} s, the recording at {ends:.2f} s")
        return
    if file.frames < UNKNOWN_LENGTH and file.frames - end > NEGLIGIBLE_S * rate:
        raise UnreadableAudioError(f"truncated: {end} of {file.frames} frames")
    cut = CUT_WAV.search(file.extra_info)
    if cut is not None:
        expected, there = int(cut[1]), int(cut[2])
        if (
            expected < UNKNOWN_BYTES and (expected - there) * end > NEGLIGIBLE_S * rate * there
        ):  # there / end bytes per frame
            raise UnreadableAudioError(f"truncated: {there} of {expected} bytes of samples")


def _clip(mono: Samples, rate: int, doubts: tuple[Doubt, ...] = ()) -> Clip:
    samples = mono if rate == SAMPLE_RATE else soxr.resample(mono, rate, SAMPLE_RATE)
    if len(samples) == 0:
        raise UnreadableAudioError(f"no samples at {SAMPLE_RATE} Hz: {len(mono)} at {rate} Hz")
    if not np.isfinite(samples).all():
        raise UnreadableAudioError("NaN or infinite samples")
    return Clip(samples, len(mono) / rate, doubts)


def _too_long(length: str, window_s: float | None) -> str:
    if window_s is None:
        return f"{length}; at most {LONGEST_S:g} s are read at once"
    return f"{length if length != 'more' else f'more than {window_s:g} s'}; the model's window is {window_s:g} s"


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        # without the prefix that names the file or buffer; for data that is not audio, every decoder is tried,
        # and the last one says that the file does not exist
        text = str(error.error_string)
        return "format not recognised" if "does not exist" in text else text
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
