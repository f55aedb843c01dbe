"""Round to nearest: each group's levels span its weights, and each weight takes the nearest; needs no data.

The control for methods that choose better: the same layers, which are HQQ's, and the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.quantization.backends import hqq
from quantlab.quantization.backends.hqq import (
    DISTRIBUTIONS,
    RECOVERS,
    is_quantized,
    kernel,
    look_up,
    repack,
    stored_bits,
    trainable,
    unpack,
    why_unsupported,
)  # fmt: skip

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibrate

__all__ = [
    "DISTRIBUTIONS", "READS", "RECOVERS", "is_quantized", "kernel", "look_up", "repack", "setup", "stored_bits",
    "trainable", "unpack", "why_unsupported",
]  # fmt: skip
READS = ("bits", "format", "granularity", "group_size", "symmetric")


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Round module by module.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    from quantlab.quantization.rounding import nearest

    hqq.check_groups(model, quant, names)
    model.to(device)
    for name in names:
        linear: Any = model.get_submodule(name)
        hqq.put(model, name, nearest(linear.weight.detach(), quant), quant, device)
    return model
