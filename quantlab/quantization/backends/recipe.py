"""A recipe: rtn, HQQ or GPTQ with other bits for each module, read from a file (`quantlab.config.recipe`).

The layers are HQQ's.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from quantlab.quantization import hqq_layer
from quantlab.quantization.backends import gptq, hqq, rtn
from quantlab.quantization.recipe import of_module, with_bits

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibration

DISTRIBUTIONS = ("hqq",)
LAYER = hqq_layer
READS = ("granularity", "group_size", "symmetric", "act_order", "damping", "path", "method", "modules")
EMPTY = "rtn"  # see gptq
METHODS = {"rtn": rtn, "hqq": hqq, "gptq": gptq}


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check the bits of each module by its method; None until the file is read."""
    if quant.target != "all" or quant.skip or not quant.head:
        return (
            "a recipe names every module: leave quant.target, quant.skip and quant.head out, and write none in the "
            "recipe for modules that stay as they are"
        )
    method = METHODS[quant.method or "rtn"]
    for name, bits in quant.modules.items():
        if bits is not None and (why := method.why_unsupported(with_bits(quant, bits), device)):
            return f"{name}: {why}"
    return None


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibration
) -> nn.Module:
    """Quantize each module with its own bits.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    settings = {name: of_module(quant, name) for name in names}
    if quant.method == "gptq":
        return gptq.setup_each(model, settings, device, calibrate)
    method = METHODS[quant.method or "rtn"]
    for _, some in groupby(sorted(names, key=lambda name: settings[name].bits or 0), lambda name: settings[name].bits):
        alike = tuple(some)
        model = method.setup(model, settings[alike[0]], alike, device, calibrate)
    return model
