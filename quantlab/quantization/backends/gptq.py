"""GPTQ: weights rounded one input at a time, so that the outputs on calibration data change least.

Blocks of the model are rounded in the order in which they run, each with the inputs that the rounded blocks before it
give. The layers are HQQ's. Only the statistics of one block are held at a time.
Source: Frantar, Ashkboos, Hoefler, Alistarh 2023, arXiv 2210.17323.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.quantization import hqq_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibration

DISTRIBUTIONS = ("hqq",)
LAYER = hqq_layer
READS = ("bits", "format", "granularity", "group_size", "symmetric", "act_order", "damping")
EMPTY = "rtn"  # the quantizer that makes the same layers without data, for an export to be loaded into


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check bits, groups, scheme and damping."""
    if quant.damping is None or quant.act_order is None:
        return "GPTQ needs quant.damping and quant.act_order"
    return hqq_layer.why_unsupported(quant, device)


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibration
) -> nn.Module:
    """Round block by block.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    return setup_each(model, dict.fromkeys(names, quant), device, calibrate)


def setup_each(
    model: nn.Module, quants: Mapping[str, QuantConfig], device: torch.device, calibrate: Calibration
) -> nn.Module:
    """As `setup`, with settings for each module."""
    from quantlab.quantization.rounding import by_block, gptq, hessians

    for name, quant in quants.items():
        hqq_layer.check_groups(model, quant, (name,))
    model.to(device)
    for block in by_block(tuple(quants)):
        found = hessians(model, block, calibrate.passes(block))
        for name in block.layers:
            linear: Any = model.get_submodule(name)
            hqq_layer.put(model, name, gptq(linear.weight.detach(), found[name], quants[name]), quants[name], device)
    return model
