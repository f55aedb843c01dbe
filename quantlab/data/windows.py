"""Encoder input from an utterance: noise added, long audio cut into windows.

`chunked` uses overlapping windows of full length, so that a word cut by one of them is whole in the next.
`consecutive` ends each window at a quiet place and starts the next one there. Both cut before decoding, so that windows
are decoded in batches and their texts merged afterwards (`quantlab.data.merge`). `sequential` leaves a recording whole:
the start of each window is found during decoding (`engines.long_form`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantlab.config.schema import DatasetConfig
from quantlab.data.audio import SAMPLE_RATE, Clip, TooLongError, UnreadableAudioError, decode
from quantlab.data.noise import Noise, noise_facts
from quantlab.data.utterance import Utterance
from quantlab.records.schema import Problem
from quantlab.scoring.normalise import is_wordless, normaliser
from quantlab.util.errors import ConfigError, shortened

Samples = npt.NDArray[np.float32]
OVERLAP_SHARE = 1 / 3  # default overlap, as a share of the window; as in transformers' pipeline
QUIET_SHARE = 1 / 3  # share of the window, at its end, that is searched for a quiet place to cut
QUIET_SAMPLES = SAMPLE_RATE // 10  # length of the quiet place


@dataclass(frozen=True)
class Window:
    """Input of one encoder call, or a whole recording for sequential decoding."""

    samples: Samples  # (samples,), mono, 16 kHz
    audio_s: float
    new_s: float  # seconds that are not in the window before


class Windowed(NamedTuple):
    """Windows of an utterance (empty if it is skipped) and its problems."""

    windows: tuple[Window, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Windower:
    """Cuts the utterances of one split into windows."""

    dataset: DatasetConfig
    split: Sequence[Utterance]  # all utterances of the split
    window_s: float  # length of the model's window
    noise: Noise | None = None

    def take(self, utterance: Utterance) -> Windowed:
        """Cut an utterance into one window, or several as set by `dataset.long`; or say why it is skipped.

        Raises:
            ConfigError: the overlap is not shorter than the window.
        """

        def problem(kind: Any, detail: str, measured: bool = False) -> Problem:
            name, split = utterance.id, utterance.split
            return Problem(utterance=name, split=split, kind=kind, detail=detail, measured=measured)

        why = _why_unscored(utterance.text, self.dataset)
        if why is not None:
            return Windowed((), (problem("empty reference", why),))
        try:
            clip = decode(utterance.audio, utterance.part, self.window_s if self.dataset.long is None else None)
            windows = self._cut(utterance, clip)
        except UnreadableAudioError as error:
            return Windowed((), (problem("unreadable", str(error)),))
        except TooLongError as error:
            way_out = "" if self.dataset.long else "; dataset.long=chunked cuts it into windows"
            return Windowed((), (problem("too long", f"{error}{way_out}"),))
        doubts = [doubt for doubt in clip.doubts if doubt.kind != "silence" or not is_wordless(utterance.text)]
        return Windowed(tuple(windows), tuple(problem(*doubt, measured=True) for doubt in doubts))

    def _cut(self, utterance: Utterance, clip: Clip) -> list[Window]:
        samples = clip.samples if self.noise is None else self.noise.mixed(clip.samples, utterance.id, self.split)
        if self.dataset.long == "sequential" or len(samples) <= round(self.window_s * SAMPLE_RATE):
            return [Window(samples, clip.seconds, clip.seconds)]
        return list(_cut(samples, _spans(samples, self.dataset, self.window_s)))


def feature_settings(dataset: DatasetConfig) -> Mapping[str, object]:
    """Settings that features depend on besides audio and extractor; empty for plain utterances.

    Raises:
        ConfigError: the noise recordings are missing.
    """
    facts: dict[str, object] = {}
    if dataset.noise.kind is not None:
        facts["noise"] = [noise_facts(dataset.noise), version("numpy")]
    if dataset.nonspeech:
        facts["nonspeech"] = True
    if dataset.unscored:
        facts["unscored"] = [dataset.unscored, dataset.language]
    if dataset.long is not None:
        facts["long"] = "whole" if dataset.long == "sequential" else [dataset.long, dataset.chunk_overlap_s]
    return facts


def _why_unscored(text: str, dataset: DatasetConfig) -> str | None:
    if is_wordless(text):
        what = f"its text {shortened(text)} has no words" if text else "it has no text"
        why = f"{what}; dataset.nonspeech=true counts the words that the model outputs there"
        return None if dataset.nonspeech else why
    if not dataset.unscored:
        return None
    normalise = normaliser("whisper", dataset.language)
    if normalise(text) in {normalise(item) for item in dataset.unscored}:
        return f"{text!r} is left out by dataset.unscored"
    return None


def _spans(samples: Samples, dataset: DatasetConfig, window_s: float) -> list[tuple[int, int]]:
    """Start and end of each window, in samples."""
    most = round(window_s * SAMPLE_RATE)
    if dataset.long == "consecutive":
        return list(_consecutive(samples, most))
    overlap_s = window_s * OVERLAP_SHARE if dataset.chunk_overlap_s is None else dataset.chunk_overlap_s
    if overlap_s >= window_s:
        raise ConfigError(f"dataset.chunk_overlap_s={overlap_s:g}: must be less than the window, {window_s:g} s")
    step = most - round(overlap_s * SAMPLE_RATE)
    starts = range(0, max(1, len(samples) - most + step), step)
    return [(start, min(start + most, len(samples))) for start in starts]


def _consecutive(samples: Samples, most: int) -> Iterator[tuple[int, int]]:
    start = 0
    while len(samples) - start > most:
        end = start + most
        quiet = _quietest(samples[end - round(most * QUIET_SHARE) : end])
        yield start, end - round(most * QUIET_SHARE) + quiet
        start = end - round(most * QUIET_SHARE) + quiet
    yield start, len(samples)


def _quietest(samples: Samples) -> int:
    """The middle of the QUIET_SAMPLES with the least power."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    return int(np.argmin(energy[QUIET_SAMPLES:] - energy[:-QUIET_SAMPLES])) + QUIET_SAMPLES // 2


def _cut(samples: Samples, spans: Sequence[tuple[int, int]]) -> Iterator[Window]:
    ends = [0, *(end for _, end in spans)]
    for (start, end), (before, until) in zip(spans, pairwise(ends), strict=True):
        yield Window(samples[start:end], (end - start) / SAMPLE_RATE, (until - before) / SAMPLE_RATE)
