"""Round to nearest: each group's levels span its weights, and each weight takes the nearest; needs no data.

The control for methods that choose better: the same layers, which are HQQ's, and the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.quantization import hqq_layer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibrate

DISTRIBUTIONS = ("hqq",)
LAYER = hqq_layer
READS = ("bits", "format", "granularity", "group_size", "symmetric")

why_unsupported = hqq_layer.why_unsupported


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Round module by module.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    from quantlab.quantization.rounding import nearest

    hqq_layer.check_groups(model, quant, names)
    model.to(device)
    for name in names:
        linear: Any = model.get_submodule(name)
        hqq_layer.put(model, name, nearest(linear.weight.detach(), quant), quant, device)
    return model
