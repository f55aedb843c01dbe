"""Quantized layers whose scales, zero points, biases and, if asked for, codes can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn

from quantlab.quantization.rounding import Levels, Rounded

_INSIDE = 0.49  # of a level: how far a weight may lie from its code at the start, so that it still rounds to it


class Recovers(Protocol):
    """A layer that can be trained."""

    RECOVERS: tuple[str, ...]  # values of quant.recover; for `scales` and `weights` it has `unpack` and `repack`

    def trainable(self, model: nn.Module, names: Sequence[str]) -> AbstractContextManager[None]:
        """Within the block, gradients pass through the layers."""

    def unpack(self, layer: Any) -> Rounded:
        """Codes, scales and zero points of a layer."""

    def repack(self, layer: Any, rounded: Rounded) -> None:
        """Replace them, in place."""


class Trainable(nn.Module):
    """A Linear of affine levels, which computes what the packed layer computes, with gradients.

    Without `original` the codes stay as they are. With it, each weight is rounded in every forward pass, and its
    gradient is that of the rounded weight (straight-through; Bengio et al. 2013, arXiv 1308.3432).
    """

    def __init__(self, rounded: Rounded, bias: torch.Tensor | None, original: torch.Tensor | None = None) -> None:
        """Copy everything into parameters in fp32.

        Args:
            rounded: codes [outputs, inputs] and levels.
            bias: [outputs].
            original: the weights before rounding, [outputs, inputs].
        """
        super().__init__()
        levels = rounded.levels
        self.highest = levels.highest
        self.scale = nn.Parameter(levels.scale.detach().clone().float())
        self.zero = nn.Parameter(levels.zero.detach().clone().float())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone().float())
        self.register_buffer("codes", rounded.codes.detach().clone().to(torch.uint8))
        self.weight = None if original is None else nn.Parameter(self._near(original.float()))

    def _near(self, original: torch.Tensor) -> torch.Tensor:
        """The weights closest to the original ones that still round to the codes."""
        middle = self._values(self._fixed_codes())
        reach = _INSIDE * self.scale.detach().abs().expand_as(middle)
        groups = original.unflatten(1, (self.scale.shape[1], -1))
        return groups.clamp(middle - reach, middle + reach).flatten(1)

    def _fixed_codes(self) -> torch.Tensor:
        codes: Any = self.codes
        return codes.unflatten(1, (self.scale.shape[1], -1)).to(self.scale.dtype)

    def _values(self, codes: torch.Tensor) -> torch.Tensor:
        return Levels(self.scale, self.zero, self.highest).values(codes)

    def _codes(self) -> torch.Tensor:
        """[outputs, groups, weights of a group]."""
        if self.weight is None:
            return self._fixed_codes()
        exact = self.weight.unflatten(1, (self.scale.shape[1], -1)) / self.scale + self.zero
        codes = exact.detach().round().clamp(0, self.highest)
        reached = exact.clamp(-0.5, self.highest + 0.5)  # further out a weight has no gradient
        return reached + (codes - reached).detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[…, inputs] → […, outputs]."""
        weight = self._values(self._codes()).flatten(1)
        return nn.functional.linear(x, weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def rounded(self) -> Rounded:
        """The present codes and levels."""
        with torch.no_grad():
            codes = self._codes().round().flatten(1)
            return Rounded(codes, Levels(self.scale.detach(), self.zero.detach(), self.highest))
