"""AWQ: inputs with large activations are scaled down and their weights up, so that rounding harms these weights less.

The scale of an input channel is its root mean square on the calibration data to a power that is tried out.
Source: Lin et al. 2024, arXiv 2306.00978, section 3.2: equations 4 and 5. There the scale is a power of the mean
magnitude; the root mean square is the diagonal of the statistics that give the error of the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from quantlab.quantization.rounding.folding import scaled
from quantlab.quantization.rounding.rounded import clipped, output_error

if TYPE_CHECKING:
    from quantlab.config.schema import QuantConfig

EXPONENTS = tuple(step / 20 for step in range(21))  # of the root mean square of an input; 0: nothing is scaled
_LEAST = 1e-4  # of the largest root mean square: inputs that hardly vary count as these


def input_scale(weights: Sequence[torch.Tensor], hessian: torch.Tensor, quant: QuantConfig) -> torch.Tensor:
    """The scale by which to divide inputs, and multiply the weights that read them, before these are rounded.

    Args:
        weights: matrices [outputs, inputs] that read the same inputs.
        hessian: [inputs, inputs], the mean of x xᵀ over the inputs x.
        quant: bits and group size.

    Returns:
        [inputs], the one of EXPONENTS with the least squared error of all outputs; its extremes multiply to 1.
    """
    scales = [_scale(hessian, exponent) for exponent in EXPONENTS]
    errors = [_error(weights, hessian, scale, quant) for scale in scales]
    return scales[errors.index(min(errors))]


def _scale(hessian: torch.Tensor, exponent: float) -> torch.Tensor:
    rms = hessian.diagonal().sqrt()
    relative = (rms / rms.max().clamp(min=torch.finfo(rms.dtype).tiny)).clamp(min=_LEAST)
    scale = relative**exponent
    return scale / (scale.max() * scale.min()).sqrt()


def _error(weights: Sequence[torch.Tensor], hessian: torch.Tensor, scale: torch.Tensor, quant: QuantConfig) -> float:
    """Mean squared error of the outputs, summed over them; a scale changes the outputs by its rounding only."""
    statistics = scaled(hessian, scale)
    found = [weight.float() * scale for weight in weights]
    errors = [output_error(clipped(weight, statistics, quant), weight, statistics).sum() for weight in found]
    return float(torch.stack(errors).sum())
