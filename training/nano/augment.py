"""Augmentation of whole batches of log-mel power: stretch, warp, tilt, noise, band limits, masks.

All randomness is drawn on the CPU from one generator, so that a batch is the same on every device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.nano.features import DYNAMIC_RANGE, MAX_FRAMES, MEL_BINS, POWER_FLOOR

STRETCH = (0.86, 1.16)
WARP = (0.87, 1.15)
TILT_KNOTS, TILT_DECADES = 5, 0.25
EASY_SNR_DB, HARD_SNR_DB = 24.0, 2.0
LOWEST_CUTOFF_BIN = 48  # about 3 kHz, as on an old telephone
FREQUENCY_MASK, TIME_MASK, MASKS = 10, 16, 2


@dataclass(frozen=True)
class Batch:
    """`log_power`: float32 (batch, frames, 80), log10; `lengths`: int64 (batch,), number of speech frames."""

    log_power: Tensor
    lengths: Tensor


class Dice:
    """Random draws from one generator, moved to the device that needs them."""

    def __init__(self, seed: int, device: torch.device):
        self.generator = torch.Generator().manual_seed(seed)
        self.device = device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """float32 of `shape` in [low, high)."""
        return (torch.rand(*shape, generator=self.generator) * (high - low) + low).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal float32 of `shape`."""
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def whole(self, high: int, *shape: int) -> Tensor:
        """int64 of `shape` in [0, high)."""
        return torch.randint(high, shape, generator=self.generator).to(self.device)


def augment(batch: Batch, noise_bank: Tensor, dice: Dice, strength: float) -> Batch:
    """A random realistic variant of a batch, before Whisper's scaling.

    Args:
        batch: clean or reverberated speech; frames after an utterance's end are arbitrary.
        noise_bank: float32 (kinds, frames, 80), log10 power.
        dice: the source of all randomness.
        strength: 0 (minimal) to 1; each utterance gets a random share of it.
    """
    size = len(batch.lengths)
    level = strength * dice.uniform(0.1, 1.0, size)
    batch = stretch_and_warp(batch, dice, (dice.uniform(0, 1, size) < 0.4 + 0.4 * level))
    log_power = batch.log_power + _tilt(dice, size)
    log_power = add_noise(Batch(log_power, batch.lengths), noise_bank, dice, level)
    cut = dice.uniform(0, 1, size) < 0.25 * level
    cutoff = LOWEST_CUTOFF_BIN + dice.whole(MEL_BINS - LOWEST_CUTOFF_BIN, size)
    above = torch.arange(MEL_BINS, device=dice.device) >= cutoff[:, None]
    silence = torch.log10(torch.tensor(POWER_FLOOR, device=dice.device))
    return Batch(torch.where((cut[:, None] & above)[:, None, :], silence, log_power), batch.lengths)


def stretch_and_warp(batch: Batch, dice: Dice, chosen: Tensor) -> Batch:
    """Resample the chosen utterances in time (tempo) and frequency (vocal-tract length), bilinearly."""
    size, frames, _ = batch.log_power.shape
    one = torch.ones(size, device=dice.device)
    tempo = torch.where(chosen, dice.uniform(*STRETCH, size), one)
    warp = torch.where(chosen, dice.uniform(*WARP, size), one)
    lengths = (batch.lengths * tempo).long().clamp(1, MAX_FRAMES)
    new_frames = int(lengths.max())
    time = torch.arange(new_frames, device=dice.device)[None] / tempo[:, None]
    bins = torch.arange(MEL_BINS, device=dice.device)[None] * warp[:, None]
    # grid_sample's corners: -1 is the first and 1 the last sample of an axis.
    x = (2 * bins / (MEL_BINS - 1) - 1)[:, None, :].expand(-1, new_frames, -1)
    y = (2 * time / max(frames - 1, 1) - 1)[:, :, None].expand(-1, -1, MEL_BINS)
    grid = torch.stack([x, y], -1)
    sampled = functional.grid_sample(batch.log_power[:, None], grid, padding_mode="border", align_corners=True)
    return Batch(sampled[:, 0], lengths)


def _tilt(dice: Dice, size: int) -> Tensor:
    """A smooth random equaliser for half the utterances, (size, 1, 80)."""
    knots = TILT_DECADES * dice.normal(size, 1, TILT_KNOTS) * (dice.uniform(0, 1, size, 1, 1) < 0.5)
    return functional.interpolate(knots, MEL_BINS, mode="linear", align_corners=True)


def add_noise(batch: Batch, noise_bank: Tensor, dice: Dice, level: Tensor) -> Tensor:
    """Add noise to a share of utterances that grows with `level`; returns (batch, frames, 80) log10 power.

    Powers add in expectation because noise and speech are uncorrelated. The ratio is of mean powers over the speech.
    """
    size, frames, _ = batch.log_power.shape
    kinds, bank_frames, _ = noise_bank.shape
    hardest = EASY_SNR_DB + (HARD_SNR_DB - EASY_SNR_DB) * level
    snr_db = hardest + (30.0 - hardest) * dice.uniform(0, 1, size)
    start = dice.whole(bank_frames - frames, size)[:, None] + torch.arange(frames, device=dice.device)
    noise = 10 ** noise_bank[dice.whole(kinds, size)[:, None], start]
    speech = 10**batch.log_power
    inside = (torch.arange(frames, device=dice.device) < batch.lengths[:, None])[:, :, None]
    speech_mean = (speech * inside).sum((1, 2)) / batch.lengths
    noise_mean = noise.sum(2).mean(1)
    gain = speech_mean / noise_mean * 10 ** (-snr_db / 10)
    gain = gain * (dice.uniform(0, 1, size) < 0.1 + 0.65 * level)
    return torch.log10(speech + gain[:, None, None] * noise + POWER_FLOOR)


def finish(batch: Batch, dice: Dice, frames: int, strength: float) -> Tensor:
    """Whisper's clamp and scaling, silence after the end, and SpecAugment's masks.

    Returns:
        float32 (batch, 80, frames), as from `WhisperFeatureExtractor` for audio padded with zeros.
    """
    padded = functional.pad(batch.log_power[:, :frames], (0, 0, 0, max(0, frames - batch.log_power.shape[1])))
    inside = (torch.arange(frames, device=dice.device) < batch.lengths[:, None])[:, :, None]
    loudest = torch.where(inside, padded, -torch.inf).amax((1, 2), keepdim=True)
    quiet = loudest - DYNAMIC_RANGE
    scaled = (torch.where(inside, torch.maximum(padded, quiet), quiet) + 4) / 4
    hidden = _masks(dice, batch.lengths, frames, strength)
    return torch.where(hidden, (quiet + 4) / 4, scaled).transpose(1, 2).contiguous()


def _masks(dice: Dice, lengths: Tensor, frames: int, strength: float) -> Tensor:
    """SpecAugment (Park et al. 2019): bool (batch, frames, 80), true where time or frequency is hidden."""
    size = len(lengths)
    used = dice.uniform(0, 1, size) < 0.7 * strength
    hidden = torch.zeros(size, frames, MEL_BINS, dtype=torch.bool, device=dice.device)
    for _ in range(MASKS):
        narrow = _interval(dice, torch.full_like(lengths, MEL_BINS), torch.full_like(lengths, FREQUENCY_MASK), MEL_BINS)
        short = _interval(dice, lengths, (lengths // 8).clamp(max=TIME_MASK), frames)
        hidden |= narrow[:, None, :] | short[:, :, None]
    return hidden & used[:, None, None]


def _interval(dice: Dice, lengths: Tensor, widest: Tensor, width: int) -> Tensor:
    """A random interval of at most `widest` within each length, as bool (batch, width)."""
    size = len(lengths)
    span = (dice.uniform(0, 1, size) * (widest + 1)).long()
    start = (dice.uniform(0, 1, size) * (lengths - span)).long()
    position = torch.arange(width, device=dice.device)
    return (position >= start[:, None]) & (position < (start + span)[:, None])
