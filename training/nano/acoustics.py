"""Acoustic processing of speech: trimming of silence, voice warping, noise, room reverberation."""

from collections.abc import Sequence

import numpy as np
import soxr

from training.nano.voices import SAMPLE_RATE_HZ

NOISES = ("white", "pink", "brown", "babble")
LEAD_S, TAIL_S = 0.05, 0.10  # silence left around trimmed speech
LOW_PASS_TAPS = 64  # of a one-pole filter; the truncated rest is below 1e-9
_SPECTRAL_SLOPE = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # power falls as 1 / f^slope


def trim(samples: np.ndarray, threshold: float = 0.01) -> np.ndarray:
    """Cut the silence (below `threshold` of the peak) at both ends, leaving `LEAD_S` and `TAIL_S`."""
    return samples[trimmed(samples, threshold)]


def trimmed(samples: np.ndarray, threshold: float = 0.01) -> slice:
    """What `trim` leaves."""
    loud = np.flatnonzero(np.abs(samples) > threshold * np.abs(samples).max(initial=0.0))
    if loud.size == 0:
        return slice(0, len(samples))
    return slice(max(0, loud[0] - round(LEAD_S * SAMPLE_RATE_HZ)), loud[-1] + round(TAIL_S * SAMPLE_RATE_HZ))


def warp(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play back `factor` times as fast: pitch and formants rise together, as from a smaller speaker."""
    return soxr.resample(samples, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ) if factor != 1 else samples


def colored_noise(color: str, length: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit power, float32 (length,), whose power falls as 1/f^0, 1/f^1 or 1/f^2.

    Raises:
        KeyError: for a colour other than white, pink, brown.
    """
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.arange(len(spectrum)), 1)
    noise = np.fft.irfft(spectrum / frequency ** (_SPECTRAL_SLOPE[color] / 2), length)
    return (noise / noise.std()).astype(np.float32)


def babble(speech: Sequence[np.ndarray], length: int, talkers: int, rng: np.random.Generator) -> np.ndarray:
    """Unit-power babble, float32 (length,): `talkers` utterances at once, each repeated from a random point."""
    mixture = np.zeros(length, np.float32)
    for index in rng.integers(len(speech), size=talkers):
        utterance = speech[index] / (speech[index].std() + 1e-6)
        mixture += np.resize(np.roll(utterance, rng.integers(len(utterance))), length)
    return mixture / mixture.std()


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Mix at a signal-to-noise ratio of mean powers; both (samples,) float32."""
    gain = np.sqrt(np.mean(samples**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    return (samples + gain * noise).astype(np.float32)


def room_response(decay_s: float, direct_to_reverberant_db: float, rng: np.random.Generator) -> np.ndarray:
    """A synthetic room impulse response, float32: a direct path and exponentially decaying noise.

    `decay_s` is the time in which the energy falls by 60 dB (RT60). The tail begins 1 to 12 ms after the direct path
    and is low-passed, as walls absorb high frequencies more.
    """
    length = round(decay_s * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail[: rng.integers(16, 200)] = 0
    tail = convolve(tail, rng.uniform(0.0, 0.7) ** np.arange(LOW_PASS_TAPS))[:length]
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail.astype(np.float32)


def convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Linear convolution by way of the spectrum, of length len(samples) + len(response) - 1."""
    length = len(samples) + len(response) - 1
    return np.fft.irfft(np.fft.rfft(samples, length) * np.fft.rfft(response, length), length)


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Speech in a room, at the same peak and of the same length (the last of the tail is cut)."""
    wet = convolve(samples, response)[: len(samples)]
    return (wet * (np.abs(samples).max() / np.abs(wet).max())).astype(np.float32)


def normalize_peak(samples: np.ndarray, peak: float) -> np.ndarray:
    """Scale to a peak in (0, 1]."""
    return (samples * (peak / np.abs(samples).max())).astype(np.float32)
