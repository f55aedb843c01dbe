"""GPTQ: weights are rounded one input at a time, and those not rounded yet make up for the error.

Source: Frantar, Ashkboos, Hoefler, Alistarh 2023, arXiv 2210.17323, algorithm 1, equations 2 and 3.
"""

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
    groups = weight.float().unflatten(1, (-1, _group_size(quant)))
    levels = spanning(groups, _highest(quant))
    return Rounded(levels.codes(groups).flatten(1), levels)


def gptq(weight: torch.Tensor, hessian: torch.Tensor, quant: QuantConfig) -> Rounded:
    """Round a weight matrix so that its outputs on the calibration data change least.

    A row that rounding to the nearest serves better, as can happen by chance, is rounded so.

    Args:
        weight: [outputs, inputs].
        hessian: [inputs, inputs], the mean of x xᵀ over the inputs x of the layer.
        quant: bits, group size, damping, and whether the inputs with the largest mean square are rounded first: the
            levels are then those of the unrounded weights.
    """
    highest, group_size = _highest(quant), _group_size(quant)
    original, weight = weight.float(), weight.float().clone()
    importance = hessian.diagonal().clone()
    by_size = importance.argsort(descending=True, stable=True)
    order = by_size if quant.act_order else torch.arange(len(importance), device=weight.device)
    upper = _inverse_factor(hessian[order][:, order], quant.damping or 0.0).to(weight.dtype)
    weight = weight[:, order]
    group_of = order // group_size
    fixed = _levels_of_all(weight[:, order.argsort()], highest, group_size, importance) if quant.act_order else None
    codes = torch.empty_like(weight)
    scales, zeros = [], []
    for start in range(0, weight.shape[1], group_size):
        block = slice(start, start + group_size)
        if fixed is None:
            found = fitted(weight[:, block], highest, importance[block])
            scales.append(found.scale)
            zeros.append(found.zero)
        errors = torch.empty_like(weight[:, block])
        for at in range(start, start + group_size):
            levels = found if fixed is None else _of_group(fixed, int(group_of[at]))
            column = weight[:, at : at + 1]
            codes[:, at : at + 1] = levels.codes(column)
            error = (column - levels.values(codes[:, at : at + 1])) / upper[at, at]
            weight[:, at : block.stop] -= error * upper[at, at : block.stop]
            errors[:, at - start] = error[:, 0]
        weight[:, block.stop :] -= errors @ upper[block, block.stop :]
    levels = fixed or Levels(torch.stack(scales, 1), torch.stack(zeros, 1), highest)
    return _better(Rounded(codes[:, order.argsort()], levels), nearest(original, quant), original, hessian)


def output_error(rounded: Rounded, weight: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each output on the calibration data, [outputs]: row by row, e H eᵀ."""
    errors = rounded.values() - weight
    return ((errors @ hessian) * errors).sum(1)


def _better(first: Rounded, second: Rounded, weight: torch.Tensor, hessian: torch.Tensor) -> Rounded:
    """Each row from that of the two with the smaller error."""
    better = (output_error(first, weight, hessian) <= output_error(second, weight, hessian)).unsqueeze(1)
    codes = torch.where(better, first.codes, second.codes)
    groups = better.unsqueeze(2)
    scale = torch.where(groups, first.levels.scale, second.levels.scale)
    zero = torch.where(groups, first.levels.zero, second.levels.zero)
    return Rounded(codes, Levels(scale, zero, first.levels.highest))


def _inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of the damped Hessian (algorithm 1, step 3)."""
    found = hessian.double().clone()
    diagonal = found.diagonal()
    diagonal += damping * diagonal.mean() + torch.finfo(torch.float64).tiny
    diagonal[diagonal <= 0] = 1.0
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(found))
    return torch.linalg.cholesky(inverse, upper=True)


def _levels_of_all(weight: torch.Tensor, highest: int, group_size: int, importance: torch.Tensor) -> Levels:
    return fitted(weight.unflatten(1, (-1, group_size)), highest, importance.view(-1, group_size))


def _of_group(levels: Levels, group: int) -> Levels:
    return Levels(levels.scale[:, group], levels.zero[:, group], levels.highest)


def _highest(quant: QuantConfig) -> int:
    assert quant.bits is not None  # see why_unsupported
    return round(2**quant.bits - 1)


def _group_size(quant: QuantConfig) -> int:
    assert quant.group_size is not None  # see why_unsupported
    return quant.group_size
