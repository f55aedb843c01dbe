"""Augmentation of whole batches of waveforms: rooms, equalisers, band limits, noise, gain, gaps.

All randomness is drawn on the CPU from one generator, so that a batch is the same on every device. Rooms, equalisers
and band limits are one product of spectra.
"""

import torch
from torch import Tensor
from torch.nn import functional

from training.nano.augment import EASY_SNR_DB, HARD_SNR_DB, Dice
from training.nano.voices import SAMPLE_RATE_HZ
from training.waveform.data import Batch, Surroundings

ROOM_SHARE = 0.3
TILT_KNOTS, TILT_DECADES = 5, 0.125  # of amplitude, so half of what `training.nano` has for power
LOWEST_CUTOFF_HZ = 3000  # as on an old telephone
WIDEST_NOTCH_HZ, NOTCHES = 800, 2
GAP_S, GAPS = 0.16, 2
FLOOR_DECADES = (-5.0, -3.2)  # of the faint noise that every recording has
PEAK_DECADES = (-1.0, -0.02)


def augment(batch: Batch, around: Surroundings, dice: Dice, strength: float) -> Batch:
    """A random realistic variant of a batch, of the same shape.

    Args:
        batch: dry speech.
        around: rooms and noises.
        dice: the source of all randomness.
        strength: 0 (minimal) to 1; each utterance gets a random share of it.
    """
    size, length = batch.samples.shape
    level = strength * dice.uniform(0.1, 1.0, size)
    spectrum = torch.fft.rfft(batch.samples, n=_fft_size(length + around.rooms.shape[1]))
    spectrum = _in_rooms(spectrum, around.rooms, dice, strength) * _equaliser(spectrum, dice, level, strength)
    samples = torch.fft.irfft(spectrum)[:, :length]
    samples = add_noise(samples, batch.lengths, around.noises, dice, level)
    samples = samples * ~_gaps(batch.lengths, length, dice, strength)
    inside = torch.arange(length, device=samples.device) < batch.lengths[:, None]
    peak = 10 ** dice.uniform(*PEAK_DECADES, size, 1)
    samples = samples * (peak / samples.abs().amax(1, keepdim=True).clamp(min=1e-5))
    floor = 10 ** dice.uniform(*FLOOR_DECADES, size, 1) * peak
    return Batch((samples + floor * dice.normal(size, length)) * inside, batch.lengths, batch.texts)


def _fft_size(length: int) -> int:
    """The next multiple of a large power of two, for which the transform is fast and the linear convolution fits."""
    return -(-length // 8192) * 8192


def _in_rooms(spectrum: Tensor, rooms: Tensor, dice: Dice, strength: float) -> Tensor:
    """Spectra of a share of the utterances after convolution with a room's response each."""
    chosen = (dice.uniform(0, 1, len(spectrum)) < ROOM_SHARE * strength).nonzero()[:, 0]
    room = dice.whole(len(rooms), len(spectrum))[chosen]
    responses = torch.fft.rfft(rooms[room], n=2 * (spectrum.shape[1] - 1))
    return spectrum.index_put((chosen,), spectrum[chosen] * responses)


def _equaliser(spectrum: Tensor, dice: Dice, level: Tensor, strength: float) -> Tensor:
    """Gains, float32 (batch, bins): a smooth tilt, no band above a cutoff, and SpecAugment's hidden bands."""
    size, bins = spectrum.shape
    hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, bins, device=spectrum.device)
    knots = TILT_DECADES * dice.normal(size, 1, TILT_KNOTS) * (dice.uniform(0, 1, size, 1, 1) < 0.5)
    # Knots are evenly spaced in the square root of the frequency, which is between a mel's spacing and a bin's.
    place = (hz / hz[-1]).sqrt() * (TILT_KNOTS - 1)
    low = place.long().clamp(max=TILT_KNOTS - 2)
    tilt = torch.lerp(knots[:, 0, low], knots[:, 0, low + 1], (place - low)[None])
    cut = (dice.uniform(0, 1, size) < 0.25 * level)[:, None]
    cutoff = LOWEST_CUTOFF_HZ + dice.uniform(0, 1, size, 1) * (SAMPLE_RATE_HZ / 2 - LOWEST_CUTOFF_HZ)
    hidden = cut & (hz > cutoff)
    masked = (dice.uniform(0, 1, size) < 0.7 * strength)[:, None]
    for _ in range(NOTCHES):
        middle = 4000 * dice.uniform(0, 1, size, 1) ** 1.5
        width = WIDEST_NOTCH_HZ * dice.uniform(0, 1, size, 1) * (0.2 + middle / 4000)
        hidden = hidden | (masked & ((hz - middle).abs() < width / 2))
    return 10**tilt * ~hidden


def add_noise(samples: Tensor, lengths: Tensor, noises: Tensor, dice: Dice, level: Tensor) -> Tensor:
    """Add noise to a share of utterances that grows with `level`; the ratio is of mean powers over the utterance."""
    size, length = samples.shape
    kinds, bank = noises.shape
    hardest = EASY_SNR_DB + (HARD_SNR_DB - EASY_SNR_DB) * level
    snr_db = hardest + (30.0 - hardest) * dice.uniform(0, 1, size)
    used = dice.uniform(0, 1, size) < 0.1 + 0.65 * level
    kind, start = dice.whole(kinds, size).tolist(), dice.whole(bank - length, size).tolist()
    noise = torch.stack([noises[k, s : s + length] for k, s in zip(kind, start, strict=True)])
    speech_power = samples.square().sum(1) / lengths
    gain = (speech_power / noise.square().mean(1)).sqrt() * 10 ** (-snr_db / 20) * used
    return samples + gain[:, None] * noise


def _gaps(lengths: Tensor, length: int, dice: Dice, strength: float) -> Tensor:
    """SpecAugment's hidden stretches of time, bool (batch, length)."""
    size = len(lengths)
    used = (dice.uniform(0, 1, size) < 0.7 * strength)[:, None]
    position = torch.arange(length, device=lengths.device)
    hidden = torch.zeros(size, length, dtype=torch.bool, device=lengths.device)
    for _ in range(GAPS):
        span = dice.uniform(0, 1, size) * (lengths / 8).clamp(max=GAP_S * SAMPLE_RATE_HZ)
        start = dice.uniform(0, 1, size) * (lengths - span)
        hidden |= (position >= start[:, None]) & (position < (start + span)[:, None])
    return hidden & used


def padded(batch: Batch, length: int) -> Batch:
    """The batch with zeros up to `length` samples."""
    extra = max(0, length - batch.samples.shape[1])
    return Batch(functional.pad(batch.samples, (0, extra)), batch.lengths, batch.texts)
