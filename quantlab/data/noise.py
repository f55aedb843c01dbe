"""Additive noise at a given signal-to-noise ratio: white, pink, babble, or recorded.

The ratio is the power of the stored utterance over the power of the added noise, as mean squares over the whole
utterance including pauses. The mixture is neither scaled nor clipped, which float samples do not need. Digital silence
has no ratio and is left unchanged. The noise depends only on seed and utterance, so that an utterance gets the same
noise, scaled, at every ratio and in every cell.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quantlab.config.schema import NoiseConfig
from quantlab.data.audio import SAMPLE_RATE, UnreadableAudioError, excerpt
from quantlab.data.utterance import WHOLE, File, Utterance
from quantlab.util.errors import ConfigError
from quantlab.util.files import Digests

Samples = npt.NDArray[np.float32]
VOICES = 6  # in babble; with fewer, words are intelligible
LOWEST_HZ = 20  # of pink noise; otherwise half of its power would be inaudible
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"})


@dataclass(frozen=True)
class Noise:
    """Noise to mix into every utterance of a split."""

    config: NoiseConfig
    recordings: tuple[Path, ...] = ()  # kind=recorded

    def mixed(self, samples: Samples, id: str, split: Sequence[Utterance]) -> Samples:
        """Add noise to an utterance; float32, same length.

        Args:
            samples: (samples,), mono, 16 kHz.
            id: id of the utterance.
            split: all utterances of its split, the voices for babble.

        Raises:
            UnreadableAudioError: the noise drawn for it cannot be read, or is silent.
        """
        assert self.config.snr_db is not None
        speech_power = _power(samples)
        if speech_power == 0:
            return samples
        noise = self._drawn(len(samples), id, split)
        noise_power = _power(noise)
        if noise_power == 0:
            raise UnreadableAudioError("the noise drawn for it is silent")
        gain = np.sqrt(speech_power / noise_power) * 10 ** (-self.config.snr_db / 20)
        return (samples + gain * noise).astype(np.float32)

    def _drawn(self, count: int, id: str, split: Sequence[Utterance]) -> npt.NDArray[np.float64]:
        generator = _generator(self.config.seed, id)
        if self.config.kind == "white":
            return generator.standard_normal(count)
        if self.config.kind == "pink":
            return pink(generator, count)
        if self.config.kind == "babble":
            return _babble(generator, count, id, split)
        path = self.recordings[generator.integers(len(self.recordings))]
        try:
            return excerpt(File(path), WHOLE, count, generator.random()).astype(np.float64)
        except UnreadableAudioError as error:
            raise UnreadableAudioError(f"its noise {path.name}: {error}") from error


def noise_of(config: NoiseConfig) -> Noise | None:
    """The noise of a configuration; None if there is none.

    Raises:
        ConfigError: the folder holds no recording.
    """
    if config.kind is None:
        return None
    return Noise(config, _recordings(Path(config.path).expanduser()) if config.path else ())


def noise_facts(config: NoiseConfig) -> Mapping[str, object]:
    """What noisy features depend on: the configuration and the content of the recordings, not their location.

    Raises:
        ConfigError: the folder holds no recording, or an unreadable one.
    """
    noise = noise_of(config)
    try:
        with Digests() as digests:
            recordings = [] if noise is None else [[path.name, digests.of(path)] for path in noise.recordings]
    except OSError as error:
        raise ConfigError(f"dataset.noise.path: {error.filename} cannot be read: {error.strerror}") from None
    return config.model_dump(exclude={"path"}) | {"recordings": recordings}


def pink(generator: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Noise with a power density of 1 / frequency above LOWEST_HZ (−10 dB per decade), and none below.

    White noise with its spectrum divided by the square root of the frequency.
    """
    spectrum = np.fft.rfft(generator.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    audible = hertz >= LOWEST_HZ
    shape = np.zeros(len(hertz))
    shape[audible] = hertz[audible] ** -0.5
    return np.fft.irfft(spectrum * shape, count)


def _babble(generator: np.random.Generator, count: int, id: str, split: Sequence[Utterance]) -> npt.NDArray[np.float64]:
    """VOICES utterances of other speakers, equally loud, each from a random start and repeated to the length."""
    speaker = next((item.speaker for item in split if item.id == id), None)
    others = [item for item in split if item.id != id and (item.speaker is None or item.speaker != speaker)]
    if not others:
        raise UnreadableAudioError("no other speaker in its split for babble noise: raise dataset.limit")
    voices = (_voice(generator, count, others[index]) for index in generator.permutation(len(others)))
    return np.sum(list(itertools.islice((voice for voice in voices if voice is not None), VOICES)), axis=0)


def _voice(generator: np.random.Generator, count: int, utterance: Utterance) -> npt.NDArray[np.float64] | None:
    """One voice normalised to a power of 1; None if it is silent."""
    place, shift = generator.random(), int(generator.integers(count))
    try:
        voice = excerpt(utterance.audio, utterance.part, count, place).astype(np.float64)
    except UnreadableAudioError:
        return None  # its own entry reports the problem
    power = _power(voice)
    return np.roll(voice, shift) / np.sqrt(power) if power else None


def _generator(seed: int, id: str) -> np.random.Generator:
    digest = hashlib.sha256(f"noise {seed} {id}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest))


def _power(samples: npt.NDArray[np.floating]) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def _recordings(folder: Path) -> tuple[Path, ...]:
    found = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir()))
    if not found:
        raise ConfigError(
            f"dataset.noise.path={folder}: no recording in it; expected a folder with {', '.join(sorted(SUFFIXES))}"
        )
    return found
