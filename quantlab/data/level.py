"""Level checks of decodable audio: silence, samples over full scale, channels that do not match."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
FULL_SCALE = 10 ** (1 / 20)  # float samples: 1.0, plus 1 dB that resampling may add
LOSSY_FULL_SCALE = 2.0  # decoders of MP3, Vorbis and Opus overshoot
SILENCE = 1e-4  # of full scale, −80 dB; above 16-bit quantization noise
HOP_S = 0.05  # time resolution of the loudness
LEAST_HOPS = 10  # needed to compare the loudness of two channels
PRESENT = 0.01  # of the power of the loudest channel; a channel below only hums
ALIKE = 0.5  # least correlation of loudness between channels that record the same sound
CANCELLED = 0.1  # of the power that the mix of independent channels would have


class Doubt(NamedTuple):
    """A problem of a clip that is still decoded and scored."""

    kind: Literal["over full scale", "silence", "channels cancel out", "channels differ"]
    detail: str


class Meter:
    """Measures the level of a clip block by block while it is read."""

    def __init__(self, channels: int, rate: int, subtype: str) -> None:
        self._channels, self._hop = channels, max(1, round(HOP_S * rate))
        self._subtype = subtype
        self._low = self._high = 0.0
        self._started = False
        self._power: list[npt.NDArray[np.float64]] = []  # (hops, channels): mean squares
        self._mixed, self._count = 0.0, 0  # sum of squares of the mix, number of samples

    @staticmethod
    def frames(rate: int, most: int) -> int:
        """A number of frames close to `most` that is a whole number of hops."""
        hop = max(1, round(HOP_S * rate))
        return max(hop, most // hop * hop)

    def read(self, frames: Samples, mono: Samples) -> None:
        """Process the next block: frames (frames, channels) and its mix to mono."""
        low, high = float(mono.min()), float(mono.max())
        self._low, self._high = (min(self._low, low), max(self._high, high)) if self._started else (low, high)
        self._started = True
        if self._channels > 1:
            whole = frames[: len(frames) // self._hop * self._hop] if len(frames) >= self._hop else frames
            hops = np.square(whole, dtype=np.float64).reshape(-1, min(self._hop, len(whole)), self._channels)
            self._power.append(hops.mean(axis=1))
            self._mixed += float(np.square(mono, dtype=np.float64).sum())
            self._count += len(mono)

    def doubts(self) -> tuple[Doubt, ...]:
        """The problems found in the clip."""
        return tuple(self._channel_doubts() or self._silence_doubts()) + tuple(self._peak_doubts())

    def _channel_doubts(self) -> list[Doubt]:
        return list(self._compared_channels()) if self._power else []

    def _compared_channels(self) -> Iterator[Doubt]:
        power = np.concatenate(self._power)
        mean = power.mean(axis=0)
        if not mean.any():
            return
        independent = float(mean.sum()) / self._channels**2
        mixed = self._mixed / self._count
        if mixed < CANCELLED * independent:
            left = f"{10 * math.log10(mixed / mean.mean()):.0f} dB" if mixed else "nothing"
            detail = f"averaging its {self._channels} channels leaves {left} of them"
            yield Doubt("channels cancel out", f"{detail}; dataset.channel=0 takes the first")
        elif self._channels_differ(np.sqrt(power[:, mean >= PRESENT * mean.max()])):
            detail = f"its {self._channels} channels are averaged, but they hold different signals"
            yield Doubt("channels differ", f"{detail}; dataset.channel=0 takes the first")

    def _channels_differ(self, loudness: npt.NDArray[np.float64]) -> bool:
        """Whether one channel is loud while another is not; loudness is (hops, channels)."""
        if len(loudness) < LEAST_HOPS or loudness.shape[1] < 2 or (loudness.std(axis=0) == 0).any():
            return False
        return bool(np.corrcoef(loudness.T).min() < ALIKE)

    def _silence_doubts(self) -> list[Doubt]:
        loudest = (self._high - self._low) / 2
        if loudest >= SILENCE:
            return []
        detail = (
            f"nothing above {20 * math.log10(loudest):.0f} dB of full scale" if loudest else "all samples are equal"
        )
        return [Doubt("silence", detail)]

    def _peak_doubts(self) -> list[Doubt]:
        peak = max(self._high, -self._low)
        if peak <= (FULL_SCALE if self._subtype in ("FLOAT", "DOUBLE") else LOSSY_FULL_SCALE):
            return []
        return [Doubt("over full scale", f"its peak is {peak:,.1f} where full scale is 1")]
