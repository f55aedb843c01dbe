"""Token embedding that reads its rows from the quantized output projection.

In Whisper the two are one matrix, and stay one with `quant.embedding=true`: the projection multiplies by the quantized
weight, and the embedding dequantizes only the rows of the current tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from quantlab.quantization.base import AnyQuantizer, layer_of
from quantlab.quantization.select import HEAD, replace

EMBEDDING = "model.decoder.embed_tokens"
LookUp = Callable[[Any, torch.Tensor], torch.Tensor]


@runtime_checkable
class LooksUp(Protocol):
    """A layer of which single rows can be read."""

    def look_up(self, head: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the weight, (…, in_features), for ids (…), in the Linear's compute dtype."""


class SharedEmbedding(nn.Module):
    """An embedding without weights, which reads rows of the output projection."""

    def __init__(self, model: nn.Module, look_up: LookUp) -> None:
        super().__init__()
        self._inside = (model,)  # in a tuple, as the model must not become a submodule of its own part
        self._look_up = look_up

    @property
    def head(self) -> nn.Module:
        """The current output projection."""
        return self._inside[0].get_submodule(HEAD)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) → (batch, tokens, d_model)."""
        return self._look_up(self.head, ids)


def share(model: nn.Module, quantizer: AnyQuantizer) -> None:
    """Replace the model's embedding by one that reads the quantized projection, in place."""
    layer = layer_of(quantizer)
    assert isinstance(layer, LooksUp)  # see registry.why_no_embedding
    replace(model, EMBEDDING, SharedEmbedding(model, layer.look_up))
