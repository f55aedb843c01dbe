"""Codes in HQQ's layer, whose packing, kernels and export they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from quantlab.quantization.backends import hqq
from quantlab.quantization.select import replace

if TYPE_CHECKING:
    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.rounding.gptq import Rounded


def check(model: nn.Module, quant: QuantConfig, names: tuple[str, ...]) -> None:
    """Refuse modules that the groups do not divide.

    Raises:
        ConfigError: names the module.
    """
    assert quant.bits is not None  # see hqq.why_unsupported
    assert quant.group_size is not None
    hqq.check_groups(model, names, quant.bits, quant.group_size, axis=1)


def put(model: nn.Module, name: str, rounded: Rounded, quant: QuantConfig, device: torch.device) -> None:
    """Replace a Linear by HQQ's layer with these codes, scales and zero points, and the bias of the Linear."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer

    assert quant.bits is not None  # see hqq.why_unsupported
    assert quant.group_size is not None
    linear: Any = model.get_submodule(name)
    bits = int(quant.bits) if quant.bits.is_integer() else quant.bits
    how = BaseQuantizeConfig(nbits=bits, group_size=quant.group_size, axis=1)
    how["weight_quant_params"]["optimize"] = False  # its codes are replaced
    dtype = linear.weight.dtype
    layer = HQQLinear(linear, how, compute_dtype=dtype, device=str(device))
    pack = Quantizer.pack[layer.meta["packing"]]
    layer.W_q.data = pack(rounded.codes.reshape(-1, quant.group_size)).to(device)
    layer.meta["scale"] = rounded.levels.scale.reshape(-1, 1).to(device, dtype)
    layer.meta["zero"] = rounded.levels.zero.reshape(-1, 1).to(device, dtype)
    replace(model, name, layer)
