"""AWQ: weights that read large activations are scaled up before they are rounded, so that rounding harms them less.

The scales are folded into what comes before (`rounding.folding`), so that nothing is added to the model, only values
change. Blocks are rounded in the order in which they run, each with the inputs that the rounded blocks before it give.
The layers are HQQ's.
Source: Lin et al. 2024, arXiv 2306.00978.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.quantization import hqq_layer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibration
    from quantlab.quantization.rounding import Block

DISTRIBUTIONS = ("hqq",)
LAYER = hqq_layer
READS = ("bits", "format", "granularity", "group_size", "symmetric")
EMPTY = "rtn"  # the quantizer that makes the same layers without data, for an export to be loaded into

why_unsupported = hqq_layer.why_unsupported


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibration
) -> nn.Module:
    """Scale and round block by block.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    from quantlab.quantization.rounding import by_block, clipped, hessians

    hqq_layer.check_groups(model, quant, names)
    model.to(device)
    for block in by_block(names):
        found = hessians(model, block, calibrate.passes(block))
        _scale_inputs(model, quant, block, found)
        for name in block.layers:
            linear: Any = model.get_submodule(name)
            hqq_layer.put(model, name, clipped(linear.weight.detach(), found[name], quant), quant, device)
    return model


def _scale_inputs(model: nn.Module, quant: QuantConfig, block: Block, found: dict[str, torch.Tensor]) -> None:
    """Scale the inputs of a block's modules and their weights, and the statistics `found` of these inputs, in place."""
    from quantlab.quantization.rounding import fold, input_scale, places, scaled

    for place in places(block):
        linears: list[Any] = [model.get_submodule(name) for name in place.after]
        scale = input_scale([linear.weight.detach() for linear in linears], found[place.after[0]], quant)
        fold(model, place, scale)
        for name in place.after:
            found[name] = scaled(found[name], scale)
