"""Token embedding that reads its rows from the quantized output projection.

In Whisper the two are one matrix. Quantized (`quant.embedding=true`) they stay one: the projection multiplies by it,
and the embedding turns only the rows of the tokens at hand back into floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from quantlab.quantization.select import HEAD, replace

EMBEDDING = "model.decoder.embed_tokens"
LookUp = Callable[[Any, torch.Tensor], torch.Tensor]


@runtime_checkable
class LooksUp(Protocol):
    """The file of a library that can read single rows of a quantized Linear."""

    def look_up(self, head: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the weight, (…, in_features), for ids (…), in the type that the Linear computes in."""


class SharedEmbedding(nn.Module):
    """An embedding that holds nothing itself."""

    def __init__(self, model: nn.Module, look_up: LookUp) -> None:
        super().__init__()
        self._inside = (model,)  # not a submodule: the model is what this is a part of
        self._look_up = look_up

    @property
    def head(self) -> nn.Module:
        """The output projection, whichever module is in its place now."""
        return self._inside[0].get_submodule(HEAD)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) → (batch, tokens, d_model)."""
        return self._look_up(self.head, ids)


def share(model: nn.Module, quantizer: LooksUp) -> None:
    """Put the quantized projection's rows in the place of the embedding, in place."""
    replace(model, EMBEDDING, SharedEmbedding(model, quantizer.look_up))
