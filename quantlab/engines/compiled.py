"""Compiled engine: encoder and decoding step by torch.compile, greedy, with a static cache.

There are only two shapes: a full batch in the encoder, and one token of a full batch in the decoder; smaller batches
are padded. `build` compiles both before anything is timed. The prompt is not compiled; on CUDA it is recorded as a
graph, like the step.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from quantlab.data import SplitFeatures
from quantlab.engines.clocks import Stopwatch
from quantlab.engines.greedy import GreedyDecoder
from quantlab.engines.pytorch import Eager, features_on, until_end
from quantlab.models.decoding import Decoding

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


@dataclass(frozen=True)
class Compiled:
    """A compiled transformers model on its device; made by `build`."""

    model: WhisperForConditionalGeneration  # quantized or not
    device: torch.device
    decoding: Decoding
    encoder: Callable[[torch.Tensor], Any]  # compiled
    decoder: GreedyDecoder

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        """See `Engine`."""
        features = self._features(speech)
        watch = Stopwatch(self.device)
        with torch.no_grad(), watch.running():
            encoded = self.encoder(features).last_hidden_state
            tokens = self.decoder.decode(encoded, self.decoding.min_new_tokens, self.decoding.max_new_tokens)
        rows = tokens.cpu().tolist()[: len(speech.ids)]
        return [until_end(self.decoding.end, row) for row in rows], watch.seconds

    def encode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        features = self._features(speech)
        watch = Stopwatch(self.device)
        with torch.no_grad(), watch.running():
            self.encoder(features)
        return watch.seconds

    def decode(self, speech: SplitFeatures) -> float:
        """See `Engine`."""
        count = self.decoding.forced_tokens
        with torch.no_grad():
            encoded = self.encoder(self._features(speech)).last_hidden_state
            watch = Stopwatch(self.device)
            with watch.running():
                self.decoder.decode(encoded, count, count)
        return watch.seconds

    def align(self, speech: SplitFeatures, rows: Sequence[Sequence[int]]) -> tuple[list[list[float]], float]:
        """See `TimesWords`; eager, as the compiled step has one token and keeps no attention."""
        return Eager(self.model, self.device, self.decoding).align(speech, rows)

    def _features(self, speech: SplitFeatures) -> torch.Tensor:
        return _full_batch(features_on(self.model, self.device, speech.mel), self.decoding.batch_size)


def build(
    model: WhisperForConditionalGeneration, device: torch.device, decoding: Decoding, speech: SplitFeatures
) -> Compiled:
    """Compile everything by decoding a batch of speech."""
    encoder = torch.compile(model.get_encoder(), dynamic=False)
    features = _full_batch(features_on(model, device, speech.mel), decoding.batch_size)
    with _compilers(device), torch.no_grad():
        encoded = encoder(features).last_hidden_state
        return Compiled(model, device, decoding, encoder, GreedyDecoder(model, device, decoding, encoded))


def _full_batch(features: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Pad a batch by repeating its last utterance."""
    missing = batch_size - len(features)
    return torch.cat([features, features[-1:].expand(missing, -1, -1)]) if missing > 0 else features


@contextlib.contextmanager
def _compilers(device: torch.device) -> Iterator[None]:
    """Shut down torch's pool of compile workers after the block, so that none is idle during the measurement.

    On CPU no pool is used, since two graphs leave nothing to parallelize.
    """
    from torch._inductor import config

    in_process = config.patch(compile_threads=1) if device.type == "cpu" else contextlib.nullcontext()
    with in_process:
        yield
    if device.type != "cpu":
        from torch._inductor.async_compile import shutdown_compile_workers

        shutdown_compile_workers()


@dataclass(frozen=True)
class Tally:
    """Counts of what torch has compiled in this process."""

    graphs: int = 0
    graph_breaks: int = 0
    frames: int = 0  # compiled Python functions, including recompilations for other shapes


def tally() -> Tally:
    """Read torch's counters, without importing an unused compiler."""
    if "torch._dynamo.utils" not in sys.modules:
        return Tally()
    from torch._dynamo.utils import counters

    return Tally(
        graphs=counters["stats"]["unique_graphs"],
        graph_breaks=sum(counters["graph_break"].values()),
        frames=counters["frames"]["total"],
    )
