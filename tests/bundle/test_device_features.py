"""The features of measure.py, and of quantlab."""

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from quantlab.bundle import measure
from quantlab.bundle.measure import log_mel
from quantlab.engines import pytorch
from quantlab.models import shipped

HOW = {"n_samples": 96_000, "n_fft": 400, "hop_length": 160}


@pytest.fixture(scope="module")
def extractor():
    return WhisperFeatureExtractor.from_pretrained(shipped("nano"))


def sounds():
    draw = np.random.default_rng(0)
    seconds = np.arange(40_000) / 16_000
    yield "noise", draw.normal(0, 0.1, 40_000)
    yield "quiet", draw.normal(0, 1e-4, 96_000)
    yield "silence", np.zeros(1_000)
    yield "chirp", 0.5 * np.sin(2 * np.pi * (100 + 1500 * seconds) * seconds)
    yield "one sample", np.array([0.7])


@pytest.mark.parametrize(("name", "samples"), list(sounds()))
def test_they_are_quantlabs(name, samples, extractor):
    samples = np.round(samples * 32768).astype(np.int16).astype(np.float32) / 32768
    ours = log_mel(samples, np.asarray(extractor.mel_filters, np.float64), HOW)
    [theirs] = extractor(
        [samples], sampling_rate=16_000, return_tensors="np", padding="max_length", max_length=96_000
    ).input_features
    padded = np.pad(samples, (0, 96_000 - len(samples)))
    [exact] = extractor._np_extract_fbank_features(padded[None], "cpu")  # the same formula in 64-bit floats
    assert ours.shape == theirs.shape == (80, 600)
    assert np.abs(ours - exact).max() < 1e-6
    # torch's transform is in 32-bit floats: its rounding shows where a bin has 10^-8 of the frame's power
    assert np.abs(ours - theirs).mean() < 1e-6
    assert np.abs(ours - theirs).max() < 1e-3


@pytest.mark.parametrize("frames", [600, 3000])
def test_a_shortened_window_is_quantlabs(frames):
    for audio_s in np.arange(0.1, 40, 0.07):
        dynamic = measure.positions_of({"decoding": {"audio_ctx": "dynamic"}}, audio_s, frames)
        assert dynamic == pytorch.positions_of(audio_s, frames // 2)
        assert measure.positions_of({"decoding": {"audio_ctx": "full"}}, audio_s, frames) == 0
