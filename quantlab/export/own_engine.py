"""Exported models of other engines behind the interface of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from quantlab.data import SplitFeatures
from quantlab.engines import Engine

WINDOW_STEP_S = 0.01  # of a frame of features


@dataclass(frozen=True)
class OwnEngine:
    """What `load` returns for whisper.cpp and CTranslate2."""

    engine: Engine

    def generate(self, input_features: Any) -> list[list[int]]:
        """Token ids of each utterance, without prompt and end, decoded as they were when the cell was measured.

        Args:
            input_features: log-mel, (utterances, mel bins, frames), an array or a tensor on the CPU.
        """
        mel = np.asarray(input_features, np.float32)
        tokens, _ = self.engine.generate(_as_speech(mel))
        return tokens


def _as_speech(mel: np.ndarray) -> SplitFeatures:
    """Whole windows, as nobody says how much of each is audio."""
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
