"""Clips of a corpus as 16-bit WAV files at 16 kHz."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quantlab.bundle.layout import CLIPS, ClipFile, HomeClip
from quantlab.data import Corpus
from quantlab.data.audio import SAMPLE_RATE
from quantlab.data.noise import noise_of
from quantlab.data.utterance import Utterance, digest_of
from quantlab.data.windows import Windower
from quantlab.records.schema import Problem
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError

FULL_SCALE = 2**15  # of a 16-bit sample
ROUNDED = "clips of 16 bits"  # in the fingerprint of a corpus whose clips are not its audio


@dataclass(frozen=True)
class Clips:
    """The clips that were written, in the order of the corpus."""

    files: tuple[ClipFile, ...]
    home: tuple[HomeClip, ...]
    problems: tuple[Problem, ...]
    rounded: int  # number of clips whose samples are not those of the corpus
    corpus: str  # fingerprint: that of the corpus if no clip is rounded


def write_clips(folder: Path, corpus: Corpus, n_samples: int, left_out: Sequence[str] = ()) -> Clips:
    """Write the clips of a corpus below `folder`; utterances that cannot be measured are listed as problems.

    Args:
        folder: of the bundle.
        corpus: its utterances, each of at most one window.
        n_samples: length of the window.
        left_out: ids of utterances that are no clip.

    Raises:
        ConfigError: no utterance is left.
    """
    (folder / CLIPS).mkdir()
    files: list[ClipFile] = []
    home: list[HomeClip] = []
    problems: list[Problem] = []
    rounded = 0
    noise = noise_of(corpus.dataset.noise)
    for split in corpus.splits.values():
        windower = Windower(corpus.dataset, split, n_samples / SAMPLE_RATE, noise)
        for utterance in (item for item in split if item.id not in set(left_out)):
            taken = windower.take(utterance)
            problems += taken.problems
            for window in taken.windows:
                file = ClipFile(file=f"{CLIPS}/{len(files):05}.wav", audio_s=window.audio_s)
                rounded += not _write(folder / file.file, window.samples)
                files.append(file)
                home.append(_home(utterance))
    if not files:
        named = "; ".join(f"{item.utterance}: {item.detail}" for item in problems[:3])
        why = named or "all of it calibrated the models"
        raise ConfigError(f"no utterance of {corpus.dataset.name} can be a clip ({why})")
    mark = digest_of([corpus.fingerprint, ROUNDED]) if rounded else corpus.fingerprint
    return Clips(tuple(files), tuple(home), tuple(problems), rounded, mark)


def _home(item: Utterance) -> HomeClip:
    return HomeClip(id=item.id, split=item.split, speaker=item.speaker, text=item.text)


def _write(path: Path, samples: npt.NDArray[np.float32]) -> bool:
    """Write a WAV; returns whether it holds exactly these samples."""
    whole = np.clip(np.round(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(whole.tobytes())
    return bool(np.array_equal(whole.astype(np.float32) / FULL_SCALE, samples))


def said(clips: Clips, corpus: Corpus) -> str:
    """One line on the clips."""
    seconds = sum(clip.audio_s for clip in clips.files)
    text = f"{counted(len(clips.files), 'clip')} of {corpus.dataset.label}, {seconds:.0f} s"
    return f"{text}, {clips.rounded} of them rounded to 16 bits" if clips.rounded else text
