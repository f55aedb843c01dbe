"""Word error rate of a model in training."""

from collections.abc import Sequence

import numpy as np

from training.nano.evaluate import BATCH, wer_spoken
from training.waveform.recognisers import Recogniser


def transcribe(recogniser: Recogniser, audio: Sequence[np.ndarray]) -> list[str]:
    """Transcripts in batches of utterances as they come."""
    return [
        transcript
        for start in range(0, len(audio), BATCH)
        for transcript in recogniser.transcribe(audio[start : start + BATCH])
    ]


def wer_of(recogniser: Recogniser, pairs: Sequence[tuple[str, np.ndarray]]) -> float:
    """WER of the words as spoken, in percent, over (text, samples) pairs."""
    return wer_spoken([text for text, _ in pairs], transcribe(recogniser, [samples for _, samples in pairs]))
