"""Greedy decoding by a library that runs encoder and decoding step as graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from quantlab.data import SplitFeatures
from quantlab.engines.clocks import Stopwatch
from quantlab.engines.pytorch import positions_of, until_end
from quantlab.models.decoding import Decoding
from quantlab.util.errors import ConfigError

CPU = torch.device("cpu")
Ids = npt.NDArray[np.int64]


class Graphs(Protocol):
    """A loaded model; keys and values are the library's own."""

    def encode(self, features: npt.NDArray[np.float32]) -> Sequence[Any]:
        """Features (utterances, mel bins, frames) → keys and values of cross attention."""

    def empty(self, utterances: int) -> Sequence[Any]:
        """Keys and values before the first token."""

    def step(
        self, tokens: Ids, positions: Ids, past: Sequence[Any], cross: Sequence[Any]
    ) -> tuple[npt.NDArray[np.float32], Sequence[Any]]:
        """Logits of the last token, writable (utterances, vocabulary), and keys and values for the next step.

        Args:
            tokens: (utterances, tokens).
            positions: of these tokens.
            past: what the step before returned, or `empty`.
            cross: what `encode` returned.
        """


def check_greedy(decoding: Decoding, library: str) -> None:
    """Check that `Stepwise` can do what is asked for.

    Raises:
        ConfigError: it is no greedy search, or needs some tokens but not a fixed number.
    """
    if decoding.num_beams != 1:
        raise ConfigError(f"{library} decodes greedily here: set protocol.num_beams=1, not {decoding.num_beams}")
    if decoding.min_new_tokens not in (0, decoding.max_new_tokens):
        raise ConfigError(
            f"{library} can decode until the end token or exactly {decoding.max_new_tokens} tokens, "
            f"not at least {decoding.min_new_tokens}"
        )


@dataclass(frozen=True)
class Stepwise:
    """A model that another library runs step by step, on the CPU."""

    graphs: Graphs
    decoding: Decoding

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """See `Engine`."""
        features, how = self._features(speech), self.decoding
        watch = Stopwatch(CPU)
        with watch.running():
            tokens = self._search(self.graphs.encode(features), len(features), how.min_new_tokens, how.max_new_tokens)
        return [until_end(how.end, row) for row in tokens.tolist()], watch.seconds

    def encode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        features = self._features(speech)
        watch = Stopwatch(CPU)
        with watch.running():
            self.graphs.encode(features)
        return watch.seconds

    def decode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        features, count = self._features(speech), self.decoding.forced_tokens
        cross = self.graphs.encode(features)
        watch = Stopwatch(CPU)
        with watch.running():
            self._search(cross, len(features), count, count)
        return watch.seconds

    def _features(self, speech: SplitFeatures) -> npt.NDArray[np.float32]:
        """The features, cut to `audio_ctx`."""
        mel = speech.mel
        if self.decoding.audio_ctx == "dynamic":
            mel = mel[:, :, : 2 * positions_of(max(speech.audio_s), mel.shape[2] // 2)]
        return np.array(mel, np.float32, order="C")

    def _search(self, cross: Sequence[Any], utterances: int, least: int, most: int) -> Ids:
        """Token ids, (utterances, tokens); ids after an end token are meaningless. `least` is 0, or `most`."""
        how = self.decoding
        never = [*how.suppressed, *([how.end] if least else [])]
        tokens = np.tile(np.array(how.prompt, np.int64), (utterances, 1))
        past, position = self.graphs.empty(utterances), 0
        ended, found = np.zeros(utterances, bool), list[Ids]()
        while len(found) < most and not ended.all():
            positions = np.arange(position, position + tokens.shape[1])
            logits, past = self.graphs.step(tokens, positions, past, cross)
            logits[:, never if found else [*never, *how.suppressed_first]] = -np.inf
            found.append(logits.argmax(axis=1))
            ended |= found[-1] == how.end
            position += tokens.shape[1]
            tokens = found[-1][:, None]
        return np.stack(found, axis=1)
