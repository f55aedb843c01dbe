"""Scales of the inputs of Linear modules, folded into what comes before: the model computes the same, nothing is added.

Of a Whisper block, two kinds of modules can take a scale per channel: a LayerNorm before a Linear, and v_proj before
out_proj, as attention mixes positions, not channels. fc2 comes after a GELU, which takes none, and k_proj and v_proj
of cross-attention read the encoder's last LayerNorm, which those of all decoder blocks share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quantlab.quantization.rounding.statistics import Block

# Outputs of the first are inputs of the others and of nothing else, in a block of transformers' Whisper.
_FEEDS = (
    ("self_attn_layer_norm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    ("self_attn.v_proj", ("self_attn.out_proj",)),
    ("encoder_attn_layer_norm", ("encoder_attn.q_proj",)),
    ("encoder_attn.v_proj", ("encoder_attn.out_proj",)),
    ("final_layer_norm", ("fc1",)),
)


@dataclass(frozen=True)
class Place:
    """A place of a model where channels can be scaled."""

    before: str  # LayerNorm or Linear
    after: tuple[str, ...]  # the Linear modules that read its outputs, and nothing else


def places(block: Block) -> Iterator[Place]:
    """The places of a block whose Linear modules are all to be quantized: others keep their weights."""
    for before, after in _FEEDS:
        place = Place(f"{block.name}.{before}", tuple(f"{block.name}.{name}" for name in after))
        linears = {*place.after} if before.endswith("layer_norm") else {place.before, *place.after}
        if linears <= {*block.layers}:
            yield place


def fold(model: nn.Module, place: Place, scale: torch.Tensor) -> None:
    """Divide the channels between the modules of a place by a scale, in place: the outputs of the model stay the same.

    Args:
        model: whose weights are changed; those in half precision are rounded anew.
        place: of the model.
        scale: [channels], greater than 0.
    """
    before: Any = model.get_submodule(place.before)
    with torch.no_grad():
        for parameter in (before.weight, before.bias):
            parameter.copy_(parameter.float() / scale.view(-1, *[1] * (parameter.ndim - 1)))
        for name in place.after:
            linear: Any = model.get_submodule(name)
            linear.weight.copy_(linear.weight.float() * scale)


def scaled(hessian: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The mean of x xᵀ once the inputs x are divided by a scale."""
    return hessian / torch.outer(scale, scale)
