"""GPTQ: weights are rounded one input at a time, and those not rounded yet make up for the error.

Source: Frantar, Ashkboos, Hoefler, Alistarh 2023, arXiv 2210.17323, algorithm 1, equations 2 and 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from quantlab.quantization.rounding.levels import Levels, fitted
from quantlab.quantization.rounding.rounded import Rounded, better, group_size, highest, nearest

if TYPE_CHECKING:
    from quantlab.config.schema import QuantConfig


def gptq(weight: torch.Tensor, hessian: torch.Tensor, quant: QuantConfig) -> Rounded:
    """Round a weight matrix so that its outputs on the calibration data change least.

    A row that rounding to the nearest serves better, as can happen by chance, is rounded so.

    Args:
        weight: [outputs, inputs].
        hessian: [inputs, inputs], the mean of x xᵀ over the inputs x of the layer.
        quant: bits, group size, damping, and whether the inputs with the largest mean square are rounded first: the
            levels are then those of the unrounded weights.
    """
    last, size = highest(quant), group_size(quant)
    original, weight = weight.float(), weight.float().clone()
    importance = hessian.diagonal().clone()
    by_size = importance.argsort(descending=True, stable=True)
    order = by_size if quant.act_order else torch.arange(len(importance), device=weight.device)
    upper = _inverse_factor(hessian[order][:, order], quant.damping or 0.0).to(weight.dtype)
    weight = weight[:, order]
    group_of = order // size
    fixed = _levels_of_all(weight[:, order.argsort()], last, size, importance) if quant.act_order else None
    codes = torch.empty_like(weight)
    scales, zeros = [], []
    for start in range(0, weight.shape[1], size):
        block = slice(start, start + size)
        if fixed is None:
            found = fitted(weight[:, block], last, importance[block])
            scales.append(found.scale)
            zeros.append(found.zero)
        errors = torch.empty_like(weight[:, block])
        for at in range(start, start + size):
            levels = found if fixed is None else _of_group(fixed, int(group_of[at]))
            column = weight[:, at : at + 1]
            codes[:, at : at + 1] = levels.codes(column)
            error = (column - levels.values(codes[:, at : at + 1])) / upper[at, at]
            weight[:, at : block.stop] -= error * upper[at, at : block.stop]
            errors[:, at - start] = error[:, 0]
        weight[:, block.stop :] -= errors @ upper[block, block.stop :]
    levels = fixed or Levels(torch.stack(scales, 1), torch.stack(zeros, 1), last)
    return better(Rounded(codes[:, order.argsort()], levels), nearest(original, quant), original, hessian)


def _inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of the damped Hessian (algorithm 1, step 3)."""
    found = hessian.double().clone()
    diagonal = found.diagonal()
    diagonal += damping * diagonal.mean() + torch.finfo(torch.float64).tiny
    diagonal[diagonal <= 0] = 1.0
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(found))
    return torch.linalg.cholesky(inverse, upper=True)


def _levels_of_all(weight: torch.Tensor, last: int, size: int, importance: torch.Tensor) -> Levels:
    return fitted(weight.unflatten(1, (-1, size)), last, importance.view(-1, size))


def _of_group(levels: Levels, group: int) -> Levels:
    return Levels(levels.scale[:, group], levels.zero[:, group], levels.highest)
