"""Audio and features of utterances that are decoded while they are spoken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from quantlab.data.audio import SAMPLE_RATE
from quantlab.data.corpus import Corpus
from quantlab.data.mel import log_mel
from quantlab.data.noise import noise_of
from quantlab.data.speech import Features, Mel
from quantlab.data.windows import Window, Windower

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

Samples = npt.NDArray[np.float32]


class Extractor:
    """The model's feature extractor, timed.

    Args:
        feature_extractor: that of the cell's features.
    """

    def __init__(self, feature_extractor: WhisperFeatureExtractor) -> None:
        self._extractor = feature_extractor

    @property
    def window_s(self) -> float:
        """Length of the model's window."""
        return float(self._extractor.n_samples / SAMPLE_RATE)

    def __call__(self, samples: Samples) -> tuple[Mel, float]:
        """Features of audio that fits a window, padded to it, (1, mel bins, frames); and the seconds they took."""
        start = time.perf_counter()
        audio_s = len(samples) / SAMPLE_RATE
        mel = log_mel([Window(samples, audio_s, audio_s)], self._extractor)
        return mel, time.perf_counter() - start


def heard(corpus: Corpus, speech: Features, window_s: float) -> Iterator[tuple[str, str, Samples]]:
    """The audio of the measured utterances, with its noise, one at a time.

    Args:
        corpus: the cell's, with the audio.
        speech: the utterances to read, each of one window.
        window_s: length of the model's window.

    Yields:
        Split, id and samples (16 kHz, mono).
    """
    noise = noise_of(corpus.dataset.noise)
    for name, measured in speech.splits.items():
        listed = corpus.splits[name]
        windower, by_id = Windower(corpus.dataset, listed, window_s, noise), {item.id: item for item in listed}
        for id in measured.ids:
            [window] = windower.take(by_id[id]).windows
            yield name, id, window.samples
