"""A recipe: rtn, HQQ or GPTQ with other bits for each module, read from a file (`quantlab.config.recipe`).

The layers are HQQ's.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from quantlab.quantization import hqq_layer
from quantlab.quantization.backends import gptq, hqq, rtn
from quantlab.quantization.hqq_layer import GROUP_MULTIPLE, ROWS_PER_PACK
from quantlab.quantization.recipe import of_module, where, with_bits
from quantlab.util.errors import ConfigError

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
    if quant.group_size and quant.group_size % GROUP_MULTIPLE:
        return (
            f"{where(quant)}: group_size: {quant.group_size}: HQQ's layer takes multiples of {GROUP_MULTIPLE}: set one"
        )
    reasons = (_why_not(quant, name, bits, device) for name, bits in quant.modules.items() if bits is not None)
    return next((why for why in reasons if why), None)


def _why_not(quant: QuantConfig, name: str, bits: float, device: str) -> str | None:
    """Why the method cannot store a module in so many bits; other reasons are the method's own."""
    method = METHODS[quant.method or "rtn"]
    why = method.why_unsupported(with_bits(quant, bits), device)
    if why is None:
        return None
    allowed = [
        f"{some:g}" for some in sorted(ROWS_PER_PACK) if not method.why_unsupported(with_bits(quant, some), device)
    ]
    if not allowed:
        return why
    return f"{where(quant)}: {name}: {bits:g}: method: {quant.method} takes {', '.join(allowed)} or none: give one"


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibration
) -> nn.Module:
    """Quantize each module with its own bits.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    settings = {name: of_module(quant, name) for name in names}
    for name, of in settings.items():
        if why := hqq_layer.why_not_cut(model, of, name):
            raise ConfigError(
                f"{where(quant)}: {why} of group_size: {quant.group_size}: set a divisor, or give the module none"
            )
    if quant.method == "gptq":
        return gptq.setup_each(model, settings, device, calibrate)
    method = METHODS[quant.method or "rtn"]
    for _, some in groupby(sorted(names, key=lambda name: settings[name].bits or 0), lambda name: settings[name].bits):
        alike = tuple(some)
        model = method.setup(model, settings[alike[0]], alike, device, calibrate)
    return model
