"""whisper.cpp engine (`whisper_full`), given our features, one utterance at a time.

Greedy, without timestamps, context or fallback, one segment: the same as transformers. A batch is a loop within
the timed region.
Source: whisper.cpp 1.8, include/whisper.h.
"""

from __future__ import annotations

import atexit
import functools
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quantlab.data import SplitFeatures
from quantlab.data.speech import frames_in
from quantlab.engines import whispercpp_times
from quantlab.engines.alignment import of as alignment_of
from quantlab.engines.clocks import Stopwatch
from quantlab.engines.pytorch import positions_of
from quantlab.models.decoding import Decoding
from quantlab.models.formats.ggml.vocabulary import Vocabulary
from quantlab.records.schema import EngineStages

CPU = torch.device("cpu")
ERROR = 4  # ggml_log_level
NO_SOUND = np.zeros(0, np.float32)  # whisper_full uses the features set before
OPTIONS = {
    "no_timestamps": True,
    "single_segment": True,
    "no_context": True,
    "temperature_inc": 0.0,  # no fallback
    "greedy": {"best_of": 1},
    "suppress_nst": True,  # the words in ggml.vocabulary.NEVER
    "no_speech_thold": 2.0,  # above any probability: nothing is discarded
    "entropy_thold": -1.0,  # nothing is taken for a loop
    "print_progress": False,
    "print_timestamps": False,
}
FRAME_MS = 10
LEAST_FRAMES = 10  # of a shorter part it decodes nothing
FILE_TYPES = 1000  # number of ggml's file types; multiples count versions of the blocks
TIMES = [name for name in EngineStages.model_fields if name.endswith("_s")]
STAGE = re.compile(r"(\w+) time\s*=\s*([\d.]+) ms(?:\s*/\s*(\d+) runs)?")


@dataclass(frozen=True)
class Loaded:
    """A model in whisper.cpp's memory, freed with the last reference to this object."""

    context: Any  # a whisper_context, which the binding does not free


class Aligner:
    """A second context of the same file that times tokens, loaded when it is first asked for."""

    def __init__(self, path: Path, decoding: Decoding) -> None:
        self._file = whispercpp_times.Kept(path)
        self._decoding = decoding

    def loaded(self, layers: int, heads: int) -> Loaded:
        """The context; `layers` of the decoder and `heads` of each."""
        if not hasattr(self, "_loaded"):
            alignment = alignment_of(self._decoding)
            options = whispercpp_times.with_times(_context_options(), alignment, layers, heads)
            self._loaded = _load(self._file.path, options)
        return self._loaded


@dataclass(frozen=True)
class WhisperCpp:
    """A model loaded by whisper.cpp; made by `load`."""

    loaded: Loaded
    vocabulary: Vocabulary
    decoding: Decoding
    threads: int
    aligner: Aligner | None = None  # with decoding.alignment

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """See `Engine`."""
        ids = self.vocabulary.ids()
        watch = Stopwatch(CPU)
        with watch.running():
            found = [self._transcribe(*item) for item in self._inputs(speech)]
        return [[ids[row] for row in rows] for rows in found], watch.seconds

    def encode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        watch = Stopwatch(CPU)
        for mel, positions in self._inputs(speech):
            self._set_features(mel, positions)
            with watch.running():
                self._encode()
        return watch.seconds

    def decode(self, speech: SplitFeatures) -> float:
        """See `Engine`; the decoder only, without whisper.cpp's sampling of tokens."""
        import _pywhispercpp as library

        tokens = [self.vocabulary.to_file[id] for id in self.decoding.prompt]
        tokens += [self.vocabulary.to_file[self.vocabulary.spare]] * (self.decoding.forced_tokens - 1)
        watch = Stopwatch(CPU)
        for mel, positions in self._inputs(speech):
            self._set_features(mel, positions)
            self._encode()
            with watch.running():
                for position, token in enumerate(tokens):
                    _check(
                        library.whisper_decode(self.loaded.context, token, 1, position, self.threads), "whisper_decode"
                    )
        return watch.seconds

    def align(self, speech: SplitFeatures, rows: Sequence[Sequence[int]]) -> tuple[list[list[float]], float]:
        """See `TimesWords`; decodes again, with the context that times tokens.

        Raises:
            RuntimeError: that gave other tokens.
        """
        import _pywhispercpp as library

        assert self.aligner is not None  # decoding.alignment
        ours, ids = self.loaded.context, self.vocabulary.ids()
        layers, heads = library.whisper_model_n_text_layer(ours), library.whisper_model_n_text_head(ours)
        timing = replace(self, loaded=self.aligner.loaded(layers, heads))
        found, watch = [], Stopwatch(CPU)
        for row, audio_s, (mel, positions) in zip(rows, speech.audio_s, self._inputs(speech), strict=True):
            with watch.running():
                again = timing._transcribe(mel, positions, frames_in(audio_s))
            if [ids[place] for place in again] != list(row):
                raise RuntimeError("whisper.cpp: decoded again for word times, an utterance has other tokens")
            found.append(whispercpp_times.starts(timing.loaded.context, len(again)))
        return found, watch.seconds

    def stage_times(self) -> EngineStages:
        """Times of whisper.cpp's clocks since loading or `reset_stage_times`."""
        import _pywhispercpp as library

        lines: list[str] = []
        library.whisper_log_set(lambda level, text: lines.append(text))
        try:
            library.whisper_print_timings(self.loaded.context)
        finally:
            _silence(library)
        found = STAGE.findall("".join(lines))
        seconds = {f"{name}_s": float(value) / 1000 for name, value, _ in found}
        runs = {f"{name}_runs": int(count) for name, _, count in found if count}
        return EngineStages.model_validate({name: seconds.get(name, 0.0) for name in TIMES} | runs)

    def reset_stage_times(self) -> None:
        """Reset whisper.cpp's clocks except `load_s`."""
        import _pywhispercpp as library

        library.whisper_reset_timings(self.loaded.context)

    def differences(self, numbers: Mapping[str, int]) -> Iterator[str]:
        """Differences between a file's header (see `ggml.read`) and what whisper.cpp reports as loaded."""
        import _pywhispercpp as library

        for name, stored in numbers.items():
            held = getattr(library, f"whisper_model_{name}")(self.loaded.context)
            if held != (expected := stored % FILE_TYPES if name == "ftype" else stored):
                yield f"whisper.cpp has loaded {name}={held}, the file says {expected}"

    def _inputs(self, speech: SplitFeatures) -> Iterator[tuple[np.ndarray, int]]:
        """The features of each utterance and its number of encoder positions; 0 means the whole window."""
        for mel, audio_s in zip(speech.mel, speech.audio_s, strict=True):
            dynamic = self.decoding.audio_ctx == "dynamic"
            yield np.ascontiguousarray(mel), positions_of(audio_s, mel.shape[1] // 2) if dynamic else 0

    def _transcribe(self, mel: np.ndarray, positions: int, frames: int = 0) -> list[int]:
        """The decoded rows of the vocabulary, without the end token; `frames` have audio to align, 0 means all."""
        import _pywhispercpp as library

        self._set(mel)
        options = self._options(positions)
        options.duration_ms = FRAME_MS * (max(frames, LEAST_FRAMES) if frames else 0)
        self._full(options)
        if not library.whisper_full_n_segments(self.loaded.context):
            return []
        count = min(library.whisper_full_n_tokens(self.loaded.context, 0), self.decoding.max_new_tokens)
        rows = [library.whisper_full_get_token_id(self.loaded.context, 0, index) for index in range(count)]
        return rows[:-1] if rows[-1] == self.vocabulary.end else rows

    def _set_features(self, mel: np.ndarray, positions: int) -> None:
        """Set features and window by a call that stops before the encoder, as there is no other way to set a window."""
        options = self._options(positions)
        options.set_encoder_begin_callback(lambda *_: False)
        self._set(mel)
        self._full(options)

    def _set(self, mel: np.ndarray) -> None:
        import _pywhispercpp as library

        bins, frames = mel.shape
        _check(library.whisper_set_mel(self.loaded.context, mel, frames, bins), "whisper_set_mel")

    def _full(self, options: Any) -> None:
        import _pywhispercpp as library

        _check(library.whisper_full(self.loaded.context, options, NO_SOUND, 0), "whisper_full")

    def _encode(self) -> None:
        import _pywhispercpp as library

        _check(library.whisper_encode(self.loaded.context, 0, self.threads), "whisper_encode")

    def _options(self, positions: int) -> Any:
        import _pywhispercpp as library

        options = library.whisper_full_default_params(library.WHISPER_SAMPLING_GREEDY)
        for key, value in OPTIONS.items():
            setattr(options, key, value)
        options.language = self.decoding.language or "en"  # unused by monolingual models
        options.suppress_blank = self.vocabulary.suppresses_blank
        options.max_tokens = max(1, self.decoding.max_new_tokens - 1)  # it stops one token later
        options.n_threads = self.threads
        options.audio_ctx = positions
        return options


def load(path: Path, vocabulary: Vocabulary, decoding: Decoding, threads: int) -> WhisperCpp:
    """Load a file, which is not needed afterwards.

    Raises:
        ValueError: whisper.cpp refuses the file.
    """
    aligner = None if decoding.alignment is None else Aligner(path, decoding)
    return WhisperCpp(_load(path, _context_options()), vocabulary, decoding, threads, aligner)


def _context_options() -> Any:
    import _pywhispercpp as library

    options = library.whisper_context_default_params()
    options.use_gpu = False
    options.flash_attn = False  # it would attend to zero padding, up to a multiple of 256 positions
    return options


def _load(path: Path, options: Any) -> Loaded:
    import _pywhispercpp as library

    errors: list[str] = []
    library.whisper_log_set(lambda level, text: errors.append(text) if level >= ERROR else None)
    try:
        context = library.whisper_init_from_file_with_params(str(path), options)
    finally:
        _silence(library)
    if errors:
        raise ValueError(f"whisper.cpp cannot load {path}: {' '.join(''.join(errors).split())}")
    loaded = Loaded(context)
    weakref.finalize(loaded, library.whisper_free, context)
    return loaded


def _silence(library: Any) -> None:
    """Silence the library's log on stderr."""
    library.whisper_log_set(lambda level, text: None)
    _forget_at_exit()


@functools.cache
def _forget_at_exit() -> None:
    """Unset the log function at exit: the binding would free it after the interpreter has ended, and crash."""
    import _pywhispercpp as library

    atexit.register(library.whisper_log_set, None)


def _check(status: int, call: str) -> None:
    if status != 0:
        raise RuntimeError(f"whisper.cpp: {call} returned {status}")
