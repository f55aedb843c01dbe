"""Sound activity in features, and the share of it in the overlap of two consecutive windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from quantlab.data.merge import Overlap
from quantlab.data.speech import HOP, SplitFeatures

FRAME_S = 0.01  # Whisper's hop: 160 samples at 16 kHz
QUIET_DB = 30.0  # a frame this far below the loud frames of a recording is a pause
_LOUD = 95  # the percentile of frames that counts as loud

Sound = npt.NDArray[np.bool_]  # (frames,) of a window: True where there is sound


def sound(speech: SplitFeatures, windows: range) -> list[Sound]:
    """The frames with sound in each window of a recording; all frames if noise fills the pauses."""
    if speech.kind == "frames":  # scaled bins have no level
        return [np.ones(_frames(speech.audio_s[row]), dtype=np.bool_) for row in windows]
    levels = [_level_db(speech, row) for row in windows]
    quiet = np.percentile(np.concatenate(levels), _LOUD) - QUIET_DB
    return [level > quiet for level in levels]


def _level_db(speech: SplitFeatures, row: int) -> npt.NDArray[np.float64]:
    """Level of each frame of a window without padding, (frames,)."""
    count = _frames(speech.audio_s[row])
    if speech.kind == "window":
        # Whisper scales mel bins as log10(power) / 4 + 1
        power = np.power(10.0, 4 * np.asarray(speech.window(row)[:, :count], dtype=np.float64)).sum(axis=0)
    else:
        power = np.square(speech.recording(row)[0, : count * HOP].astype(np.float64))
        power = np.add.reduceat(power, np.arange(0, len(power), HOP))
    level_db: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(power, np.finfo(np.float64).tiny))
    return level_db


def _frames(audio_s: float) -> int:
    return max(1, round(audio_s / FRAME_S))


def overlaps(found: Sequence[Sound], shared_s: Sequence[float]) -> list[Overlap]:
    """The overlap of each window but the first with the one before it.

    Args:
        found: sound activity of each window, see `sound`.
        shared_s: seconds that each window shares with the one before it.
    """
    frames = [round(seconds / FRAME_S) for seconds in shared_s[1:]]
    return [
        Overlap(_share(before[max(0, len(before) - count) :], before), _share(after[:count], after))
        for (before, after), count in zip(pairwise(found), frames, strict=True)
    ]


def _share(part: Sound, whole: Sound) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else 0.0
