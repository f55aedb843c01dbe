"""Augmentation in the mel domain against hand-computed cases."""

import pytest
import torch

from training.nano import augment
from training.nano.augment import Batch, Dice

CPU = torch.device("cpu")


def batch(size=4, frames=100):
    ramp = torch.linspace(-4, 0, frames)[None, :, None] + torch.linspace(-1, 1, 80)
    return Batch(ramp.expand(size, -1, -1).clone(), torch.tensor([frames] + [frames // 2] * (size - 1)))


def test_same_seed_same_batch():
    noise = torch.randn(3, 400, 80)
    first, second = (augment.augment(batch(), noise, Dice(5, CPU), 1.0) for _ in range(2))
    torch.testing.assert_close(first.log_power, second.log_power, rtol=0, atol=0)


def test_nobody_chosen_means_nothing_changed():
    before = batch()
    after = augment.stretch_and_warp(before, Dice(0, CPU), torch.zeros(4, dtype=torch.bool))
    torch.testing.assert_close(after.log_power, before.log_power, atol=1e-4, rtol=0)
    assert after.lengths.tolist() == before.lengths.tolist()


def test_stretching_keeps_where_in_the_utterance_things_are():
    before = batch()
    after = augment.stretch_and_warp(before, Dice(0, CPU), torch.ones(4, dtype=torch.bool))
    assert set(after.lengths.tolist()) != set(before.lengths.tolist())
    for row in range(4):
        tempo = after.lengths[row] / before.lengths[row]
        # Time makes up 0.04 per frame of the ramp; the lowest bin stays the lowest whatever the warp.
        middle = int(after.lengths[row]) // 2
        expected = before.log_power[row, 0, 0] + 0.0404 * middle / tempo
        assert after.log_power[row, middle, 0] == pytest.approx(expected.item(), abs=0.05)


def test_noise_reaches_the_ratio_it_was_drawn_for():
    """With constant spectra: speech power 1, noise power 100, level 1; the ratio must lie within the drawn range."""
    speech = Batch(torch.zeros(200, 50, 80), torch.full((200,), 50))
    mixed = augment.add_noise(speech, torch.full((1, 100, 80), 2.0), Dice(0, CPU), torch.ones(200))
    added = 10 ** mixed[:, 0, 0] - 1
    noisy = added > 1e-6
    snr_db = -10 * torch.log10(added[noisy])
    assert 0.6 < noisy.float().mean() < 0.9
    assert snr_db.min() >= augment.HARD_SNR_DB - 0.01
    assert snr_db.max() <= 30.01


def test_after_the_end_there_is_only_the_floor():
    finished = augment.finish(batch(), Dice(0, CPU), 120, strength=0.0)
    assert finished.shape == (4, 80, 120)
    floor = finished[1].max() - augment.DYNAMIC_RANGE / 4
    torch.testing.assert_close(finished[1, :, 50:], floor.expand(80, 70))


def test_masks_hide_what_they_say_and_no_more():
    masks = augment._masks(Dice(0, CPU), torch.full((500,), 100), 100, strength=1.0)
    used = masks.any((1, 2)).float().mean()
    assert 0.6 < used < 0.75
    whole_bins, whole_frames = masks.all(1).sum(1), masks.all(2).sum(1)
    assert whole_bins.max() <= augment.MASKS * augment.FREQUENCY_MASK
    assert whole_frames.max() <= augment.MASKS * 100 // 8
