"""Noise, rooms and features against what their definitions say."""

import numpy as np
import pytest
import torch

from training.nano import acoustics, augment, features


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def tone(seconds=1.0, hertz=440.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(16_000 * seconds)) / 16_000).astype(np.float32)


@pytest.mark.parametrize(("color", "decibels_per_octave"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_noise_has_the_slope_of_its_color(color, decibels_per_octave, rng):
    noise = acoustics.colored_noise(color, 2**18, rng)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [power[2**k : 2 ** (k + 1)].mean() for k in range(8, 16)]
    slope = np.polyfit(range(len(octaves)), 10 * np.log10(octaves), 1)[0]
    assert slope == pytest.approx(decibels_per_octave, abs=0.3)
    assert noise.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_noise_is_mixed_at_the_ratio_asked_for(snr_db, rng):
    speech, noise = tone(), rng.standard_normal(16_000).astype(np.float32)
    added = acoustics.add_noise(speech, noise, snr_db) - speech
    assert 10 * np.log10(np.mean(speech**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.01)


def test_room_decays_by_60_db_in_its_decay_time(rng):
    decay_s = 0.4
    response = acoustics.room_response(decay_s, 0.0, rng)
    energy = np.cumsum(response[:1:-1] ** 2)[::-1]  # Schroeder's backward integral of the tail
    level = 10 * np.log10(energy / energy[0])
    start, end = np.searchsorted(-level, [5, 25])
    assert 3 * (end - start) / 16_000 == pytest.approx(decay_s, rel=0.15)


def test_room_has_the_direct_to_reverberant_ratio(rng):
    response = acoustics.room_response(0.3, 6.0, rng)
    assert 10 * np.log10(1 / np.sum(response[1:] ** 2)) == pytest.approx(6.0, abs=0.01)


def test_convolution_against_the_definition(rng):
    a, b = rng.standard_normal(50), rng.standard_normal(20)
    np.testing.assert_allclose(acoustics.convolve(a, b), np.convolve(a, b), atol=1e-10)


def test_trim_leaves_the_lead_and_the_tail():
    padded = np.concatenate([np.zeros(8000, np.float32), tone(0.5), np.zeros(8000, np.float32)])
    expected = 0.5 + acoustics.LEAD_S + acoustics.TAIL_S
    assert len(acoustics.trim(padded)) / 16_000 == pytest.approx(expected, abs=0.01)


def test_trim_of_silence_is_silence():
    silence = np.zeros(100, np.float32)
    assert np.array_equal(acoustics.trim(silence), silence)


def test_warp_raises_the_pitch_and_shortens():
    warped = acoustics.warp(tone(1.0, 400.0), 1.25)
    assert len(warped) == pytest.approx(12_800, abs=2)
    assert np.argmax(np.abs(np.fft.rfft(warped))) / (len(warped) / 16_000) == pytest.approx(500, abs=2)


def test_features_are_those_of_whispers_own_extractor(rng):
    """What training computes piecewise must be what `generate` is given, apart from the frame where speech ends."""
    samples = (0.3 * rng.standard_normal(32_000) * np.linspace(0, 1, 32_000)).astype(np.float32)
    log_power = torch.from_numpy(features.log_power(samples).astype(np.float32))[None]
    batch = augment.Batch(log_power, torch.tensor([log_power.shape[1]]))
    dice = augment.Dice(0, torch.device("cpu"))
    ours = augment.finish(batch, dice, features.MAX_FRAMES, strength=0.0)[0]
    theirs = features.feature_extractor()(samples, sampling_rate=16_000, return_tensors="pt").input_features[0]
    assert ours.shape == theirs.shape
    speech_frames = 32_000 // features.HOP_SAMPLES
    torch.testing.assert_close(ours[:, : speech_frames - 1], theirs[:, : speech_frames - 1], atol=2e-3, rtol=0)
    torch.testing.assert_close(ours[:, speech_frames + 2 :], theirs[:, speech_frames + 2 :], atol=2e-3, rtol=0)
