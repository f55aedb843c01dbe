"""Exported models of other engines, with an interface like that of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from quantlab.data import SplitFeatures
from quantlab.engines import Engine

WINDOW_STEP_S = 0.01  # duration of a feature frame


@dataclass(frozen=True)
class OwnEngine:
    """Model that `load` returns for whisper.cpp and CTranslate2."""

    engine: Engine

    def generate(self, input_features: Any) -> list[list[int]]:
        """Token ids of each utterance, without prompt and end, decoded with the options of the measurement.

        Args:
            input_features: log-mel (utterances, mel bins, frames), an array or a CPU tensor.
        """
        mel = np.asarray(input_features, np.float32)
        tokens, _ = self.engine.generate(_as_speech(mel))
        return tokens


def _as_speech(mel: np.ndarray) -> SplitFeatures:
    """Features as full windows, since the length of the audio within each is unknown."""
    count, _, frames = mel.shape
    seconds = (frames * WINDOW_STEP_S,) * count
    return SplitFeatures(
        ids=tuple(map(str, range(count))),
        texts=("",) * count,
        speakers=(None,) * count,
        audio_s=seconds,
        new_s=seconds,
        stored=mel,
        rows=tuple(range(count)),
    )
