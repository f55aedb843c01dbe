"""SmoothQuant: torch's dynamic int8, once large activations are scaled down and the weights that read them up.

torch has one scale for all activations of a layer, which its largest channel sets for the others too. The scales are
folded into what comes before (`rounding.folding`), so that nothing is added to the model, only values change.
Source: Xiao et al. 2023, arXiv 2211.10438.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.quantization.backends import torch as dynamic_int8

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibration

DISTRIBUTIONS, DTYPES = dynamic_int8.DISTRIBUTIONS, dynamic_int8.DTYPES
LAYER = dynamic_int8
READS = (*dynamic_int8.READS, "smoothing")
EMPTY = "torch"  # the quantizer that makes the same layers without data, for an export to be loaded into


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check the smoothing, and what torch needs."""
    if quant.smoothing is None:
        return "SmoothQuant needs quant.smoothing, from 0 to 1; 0.5 is usual"
    return dynamic_int8.why_unsupported(quant, device)


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibration
) -> nn.Module:
    """Scale inputs of all blocks by the activations of the unquantized model, then convert in place."""
    from quantlab.quantization.rounding import by_block, fold, maxima, places, smoothing_scale

    assert quant.smoothing is not None  # see why_unsupported
    model.to(device)
    found = [place for block in by_block(names) for place in places(block)]
    largest = maxima(model, [place.after[0] for place in found], calibrate.passes())
    for place in found:
        linears: list[Any] = [model.get_submodule(name) for name in place.after]
        weights = [linear.weight.detach() for linear in linears]
        fold(model, place, smoothing_scale(weights, largest[place.after[0]], quant.smoothing))
    return dynamic_int8.setup(model, quant, names, device, calibrate)
