"""CTranslate2 engine, as in faster-whisper, given our features and prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from quantlab.data import SplitFeatures
from quantlab.engines import alignment
from quantlab.engines.clocks import Stopwatch
from quantlab.engines.pytorch import positions_of
from quantlab.models.decoding import Decoding


@dataclass(frozen=True)
class CTranslate2:
    """A model loaded by CTranslate2."""

    model: Any  # ctranslate2.models.Whisper
    device: torch.device
    decoding: Decoding

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """See `Engine`."""
        features = self._features(speech)
        endless = self.decoding.min_new_tokens > 0
        watch = Stopwatch(self.device)
        with watch.running():
            found = self._search(features, len(speech.ids), self.decoding.max_new_tokens, endless)
        return [item.sequences_ids[0] for item in found], watch.seconds

    def encode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        features = self._features(speech)
        watch = Stopwatch(self.device)
        with watch.running():
            self.model.encode(features)
        return watch.seconds

    def decode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        encoded = self.model.encode(self._features(speech))
        watch = Stopwatch(self.device)
        with watch.running():
            self._search(encoded, len(speech.ids), self.decoding.forced_tokens, endless=True)
        return watch.seconds

    def align(self, speech: SplitFeatures, rows: Sequence[Sequence[int]]) -> tuple[list[list[float]], float]:
        """See `TimesWords`. The library takes the heads from the model's config.json."""
        features, prompt = self._features(speech), list(self.decoding.prompt)
        fitting = alignment.of(self.decoding).fitting(rows)
        watch = Stopwatch(self.device)
        with watch.running():
            encoded = self.model.encode(features)
            frames = [2 * positions for positions in alignment.positions_in(speech)]
            found = self.model.align(encoded, prompt[:-1], fitting, frames)  # it adds <|notimestamps|> itself
        return [_starts(item.alignments, len(row)) for item, row in zip(found, fitting, strict=True)], watch.seconds

    def _features(self, speech: SplitFeatures) -> Any:
        """The features as a StorageView on the device, cut to `audio_ctx`."""
        import ctranslate2

        mel = speech.mel
        if self.decoding.audio_ctx == "dynamic":
            mel = mel[:, :, : 2 * positions_of(max(speech.audio_s), mel.shape[2] // 2)]
        view = ctranslate2.StorageView.from_array(np.array(mel, order="C"))
        return view.to_device(ctranslate2.Device.cuda) if self.device.type == "cuda" else view

    def _search(self, encoded: Any, utterances: int, tokens: int, endless: bool) -> Any:
        """Decode at most `tokens` tokens, or exactly that many if `endless`."""
        decoding = self.decoding
        return self.model.generate(
            encoded,
            [list(decoding.prompt)] * utterances,
            beam_size=decoding.num_beams,
            max_length=length_limit(tokens, len(decoding.prompt)),
            suppress_tokens=[*decoding.suppressed, *([decoding.end] if endless else [])],
            suppress_blank=bool(decoding.suppressed_first),  # the tokens are listed in the model's config.json
        )


def _starts(path: Sequence[tuple[int, int]], tokens: int) -> list[float]:
    """Seconds at which a path through (token, position) enters each token, and leaves the last one."""
    first: dict[int, int] = {}
    for token, position in path:
        first.setdefault(token, position)
    return [first[token] * alignment.POSITION_S for token in range(tokens + 1)]


def length_limit(tokens: int, prompt_tokens: int) -> int:
    """The `max_length` for which the library decodes at most `tokens` tokens, including the end token.

    It uses min(max_length // 2, max_length - steps of the prompt before its last token), as half of OpenAI's 448
    positions are reserved for previous text.
    Source: CTranslate2, src/models/whisper.cc, WhisperReplica::generate.
    """
    return tokens + max(tokens, prompt_tokens - 1)
