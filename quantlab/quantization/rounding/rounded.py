"""Weight matrices in codes: rounded to the nearest level, and the error of their outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from quantlab.quantization.rounding.levels import Levels, fitted, spanning

if TYPE_CHECKING:
    from quantlab.config.schema import QuantConfig


@dataclass(frozen=True)
class Rounded:
    """A weight matrix in codes."""

    codes: torch.Tensor  # [outputs, inputs], whole numbers as floats
    levels: Levels  # scale and zero of [outputs, groups, 1]

    def values(self) -> torch.Tensor:
        """The matrix that the codes stand for, [outputs, inputs]."""
        groups = self.levels.scale.shape[1]
        return self.levels.values(self.codes.unflatten(1, (groups, -1))).flatten(1)


def nearest(weight: torch.Tensor, quant: QuantConfig) -> Rounded:
    """Round each weight to the nearest of levels that span its group.

    Args:
        weight: [outputs, inputs].
        quant: bits and group size.
    """
    groups = weight.float().unflatten(1, (-1, group_size(quant)))
    levels = spanning(groups, highest(quant))
    return Rounded(levels.codes(groups).flatten(1), levels)


def clipped(weight: torch.Tensor, hessian: torch.Tensor, quant: QuantConfig) -> Rounded:
    """Round each weight to the nearest of levels over a part of the range of its group, in rows where that is better.

    Args:
        weight: [outputs, inputs].
        hessian: [inputs, inputs], the mean of x xᵀ over the inputs x of the layer.
        quant: bits and group size.
    """
    weight = weight.float()
    groups = weight.unflatten(1, (-1, group_size(quant)))
    levels = fitted(groups, highest(quant), hessian.diagonal().view(-1, group_size(quant)))
    return better(Rounded(levels.codes(groups).flatten(1), levels), nearest(weight, quant), weight, hessian)


def output_error(rounded: Rounded, weight: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each output on the calibration data, [outputs]: row by row, e H eᵀ."""
    errors = rounded.values() - weight
    return ((errors @ hessian) * errors).sum(1)


def better(first: Rounded, second: Rounded, weight: torch.Tensor, hessian: torch.Tensor) -> Rounded:
    """Each row from that of the two with the smaller error."""
    chosen = (output_error(first, weight, hessian) <= output_error(second, weight, hessian)).unsqueeze(1)
    codes = torch.where(chosen, first.codes, second.codes)
    groups = chosen.unsqueeze(2)
    scale = torch.where(groups, first.levels.scale, second.levels.scale)
    zero = torch.where(groups, first.levels.zero, second.levels.zero)
    return Rounded(codes, Levels(scale, zero, first.levels.highest))


def highest(quant: QuantConfig) -> int:
    """The highest code; the lowest is 0."""
    assert quant.bits is not None  # see why_unsupported
    return round(2**quant.bits - 1)


def group_size(quant: QuantConfig) -> int:
    """Weights of a row that share one scale."""
    assert quant.group_size is not None  # see why_unsupported
    return quant.group_size
