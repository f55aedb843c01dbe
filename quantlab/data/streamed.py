"""Audio and features of utterances that are decoded while they are spoken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from quantlab.data.audio import SAMPLE_RATE
from quantlab.data.corpus import Corpus
from quantlab.data.front_end import front_end
from quantlab.data.noise import noise_of
from quantlab.data.speech import Features, SplitFeatures
from quantlab.data.windows import Window, Windower

Samples = npt.NDArray[np.float32]


class Extractor:
    """The model's feature extractor, timed.

    Args:
        feature_extractor: that of the cell's features, of transformers.
    """

    def __init__(self, feature_extractor: Any) -> None:
        self._front_end = front_end(feature_extractor)
        self.window_s = self._front_end.window_s

    def __call__(self, samples: Samples) -> tuple[SplitFeatures, float]:
        """Features of audio that fits a window, as an utterance without name and text; and the seconds they took."""
        start = time.perf_counter()
        audio_s = len(samples) / SAMPLE_RATE
        rows = self._front_end.rows([Window(samples, audio_s, audio_s)])
        part = SplitFeatures(
            ids=("",), texts=("",), speakers=(None,), audio_s=(audio_s,), new_s=(audio_s,), stored=rows, rows=(0,),
            kind=self._front_end.kind, hop=self._front_end.hop,
        )  # fmt: skip
        return part, time.perf_counter() - start


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
