"""HQQ: half-quadratic quantization, affine, one scale and zero point per group of weights, no data needed.

Bits 8, 4, 3, 2, 1, and 1.58: three levels (0, 1, 2), which the library stores in 2-bit fields, so that ternary
is as large as 2 bit. 3 bit is ten weights to an int32 (3.2 bits each). Scales and zero points have the model's
dtype: in fp32 and groups of 64 they cost one bit per weight.
Source: https://github.com/dropbox/hqq, https://mobiusml.github.io/hqq_blog/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantlab.config import ConfigError
from quantlab.quantizers import replace, why_not_among, why_not_installed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config import QuantConfig
    from quantlab.quantizers import Calibrate

DISTRIBUTIONS = ("hqq",)
# bits → rows of groups that the library packs into one; ten of 3 bits too, but those it pads
ROWS_PER_PACK = {8: 1, 4: 2, 3: 1, 2: 4, 1.58: 4, 1: 8}
GROUP_MULTIPLE = 8  # a condition of hqq.core.quantize.hqq_base_quant_config


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Bits, group size and scheme of the library."""
    if quant.bits is None or quant.group_size is None:
        return "HQQ needs quant.bits and quant.group_size"
    if quant.group_size % GROUP_MULTIPLE:
        return f"HQQ's group size is a multiple of {GROUP_MULTIPLE}, quant.group_size={quant.group_size} is not"
    return (
        why_not_installed("hqq", "hqq")
        or why_not_among("bits", quant.bits, ROWS_PER_PACK, "HQQ")
        or why_not_among("scheme", quant.scheme, ["weight-only"], "HQQ")
        or why_not_among("granularity", quant.granularity, ["per-group"], "HQQ")
        or why_not_among("symmetric", quant.symmetric, [False], "HQQ")
    )


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Replace module after module, on the device, freeing each fp32 weight before the next.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    assert quant.bits is not None  # see why_unsupported
    assert quant.group_size is not None
    axis = 1 if quant.axis is None else quant.axis
    bits = int(quant.bits) if quant.bits.is_integer() else quant.bits
    _check_groups(model, names, bits, quant.group_size, axis)
    how = BaseQuantizeConfig(nbits=bits, group_size=quant.group_size, axis=axis)
    model.to(device)
    _use_backend(device, axis)
    with torch.no_grad():
        for name in names:
            linear: Any = model.get_submodule(name)
            dtype = linear.weight.dtype
            replace(model, name, HQQLinear(linear, how, compute_dtype=dtype, device=str(device)))
    return model


def _check_groups(model: nn.Module, names: tuple[str, ...], bits: float, group_size: int, axis: int) -> None:
    """The library takes groups that straddle rows, and breaks on a number of groups that does not pack."""
    for name in names:
        linear: Any = model.get_submodule(name)
        across = linear.in_features if axis == 1 else linear.out_features
        groups = linear.weight.numel() // group_size
        if across % group_size or (axis == 1 and groups % ROWS_PER_PACK[bits]):
            shape = f"{linear.out_features}×{linear.in_features}"
            raise ConfigError(
                f"HQQ cannot cut {name} ({shape}) into whole groups of quant.group_size={group_size} along "
                f"axis {axis}: choose a divisor, or quant.skip=['{name}']"
            )


def _use_backend(device: torch.device, axis: int) -> None:
    """The CUDA extension where it is installed and applies; the backend is a setting of the class."""
    from hqq.core import quantize

    fast = device.type == "cuda" and axis == 0 and quantize.hqq_aten_is_available
    quantize.HQQLinear.set_backend(quantize.HQQBackend.ATEN if fast else quantize.HQQBackend.PYTORCH)


def is_quantized(module: nn.Module) -> bool:
    """An HQQ module whose weight is packed integers."""
    from hqq.core.quantize import HQQLinear

    return isinstance(module, HQQLinear) and module.ready and not module.W_q.is_floating_point()


def kernel(module: Any) -> str | None:
    """The backend that the class has now: the library falls back from one to another by itself."""
    return f"HQQ {module.backend.name}: dequantize, matmul"
