"""Front ends: what a model is given of the audio, log-mel frames or samples, by its own feature extractor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from quantlab.data.audio import SAMPLE_RATE
from quantlab.data.speech import HOP, Kind, Mel, rows_for
from quantlab.data.windows import Samples, Window

LONGEST_S = 30.0  # seconds of the longest utterance that is given uncut to a model without a window: as Whisper's
ROW_S = 1  # seconds of a row of the cache, for such a model


class FrontEnd(Protocol):
    """A feature extractor, with the shape and the settings of its features."""

    kind: Kind
    values: int  # of a frame: mel bins, or 1 for samples
    hop: int  # samples from one frame to the next
    row: int  # frames in a row of the cache
    window_s: float  # seconds of the longest audio that the model is given at once
    settings: Mapping[str, object]  # that the features depend on

    def rows(self, windows: Sequence[Window]) -> Mel:
        """Features, float32, (rows, values, frames): as many rows of each window as it has frames for."""


def front_end(extractor: Any) -> FrontEnd:
    """The front end of a feature extractor of transformers."""
    if type(extractor).__name__ == "WhisperFeatureExtractor":
        return _Window(extractor)
    return _Frames(extractor) if hasattr(extractor, "hop_length") else _Waveform(extractor)


class _Window:
    """Whisper's: log-mel frames of a window of fixed length."""

    SETTINGS = (
        "feature_size",
        "sampling_rate",
        "hop_length",
        "n_fft",
        "n_samples",
        "nb_max_frames",
        "dither",
        "padding_value",
        "padding_side",
    )
    kind: Kind = "window"
    hop = HOP

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor
        self.values: int = extractor.feature_size
        self.row: int = extractor.nb_max_frames
        self.window_s = extractor.n_samples / SAMPLE_RATE
        self.settings: Mapping[str, object] = {name: getattr(extractor, name) for name in self.SETTINGS}

    def rows(self, windows: Sequence[Window]) -> Mel:
        """See `FrontEnd`; a recording that is left whole has several rows."""
        count = max(rows_for(window.audio_s, self.row) for window in windows)
        batch = self._extractor(
            [window.samples for window in windows],
            sampling_rate=SAMPLE_RATE,
            return_tensors="np",
            padding="max_length",
            max_length=count * self._extractor.n_samples,
        )
        return np.ascontiguousarray(np.concatenate(np.split(batch.input_features, count, axis=2)), dtype="<f4")


class _Waveform:
    """wav2vec2's, HuBERT's and Moonshine's: the samples, scaled to mean 0 and variance 1 if the checkpoint says so."""

    kind: Kind = "samples"
    values, hop = 1, 1
    row = ROW_S * SAMPLE_RATE
    window_s = LONGEST_S

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor
        self.settings: Mapping[str, object] = {"samples": {"do_normalize": bool(extractor.do_normalize)}}

    def rows(self, windows: Sequence[Window]) -> Mel:
        """See `FrontEnd`."""
        return np.concatenate([_in_rows(self._of(window.samples)[None], self.row) for window in windows])

    def _of(self, samples: Samples) -> Samples:
        found: Samples = self._extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="np").input_values[0]
        return found


class _Frames:
    """Parakeet's: log-mel frames of the whole utterance, each bin scaled over it."""

    SETTINGS = ("feature_size", "hop_length", "n_fft", "win_length", "preemphasis", "padding_value")
    kind: Kind = "frames"
    window_s = LONGEST_S

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor
        self.values: int = extractor.feature_size
        self.hop: int = extractor.hop_length
        self.row = ROW_S * SAMPLE_RATE // self.hop
        self.settings: Mapping[str, object] = {"frames": {name: getattr(extractor, name) for name in self.SETTINGS}}

    def rows(self, windows: Sequence[Window]) -> Mel:
        """See `FrontEnd`."""
        return np.concatenate([_in_rows(self._of(window.samples), self.row) for window in windows])

    def _of(self, samples: Samples) -> Mel:
        found = self._extractor([samples], sampling_rate=SAMPLE_RATE, return_tensors="np")
        real: Mel = found.input_features[0][found.attention_mask[0].astype(bool)]
        return real.T


def _in_rows(frames: Mel, length: int) -> Mel:
    """(values, frames) → (rows, values, length), the last row filled up with zeros."""
    missing = -frames.shape[1] % length
    padded = np.pad(frames, ((0, 0), (0, missing)))
    return np.ascontiguousarray(padded.reshape(len(frames), -1, length).transpose(1, 0, 2), dtype="<f4")
