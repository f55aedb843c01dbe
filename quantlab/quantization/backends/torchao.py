"""torchao: weights of 1 to 8 bits in tensor subclasses, set up by its configuration objects.

`intx` supports 1 to 8 bits, per channel or per group, symmetric or not, so that each can be varied alone. It rounds to
the levels of `bits` but stores each level in a byte: its accuracy is that of the bits, its size that of int8, as the
receipt shows.
Source: https://github.com/pytorch/ao, torchao.quantization
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.util.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibrate

DISTRIBUTIONS = ("torchao",)
READS = ("bits", "format", "granularity", "group_size", "symmetric")
BITS: dict[str, tuple[int, ...]] = {  # format → stored bits
    "int8": (8,),
    "int4": (4,),
    "float8_e4m3fn": (8,),
    "intx": (1, 2, 3, 4, 5, 6, 7, 8),
}
SCHEMES = {
    "int8": ("weight-only", "dynamic"),
    "int4": ("weight-only",),
    "float8_e4m3fn": ("weight-only", "dynamic"),
    "intx": ("weight-only",),
}
INT4_GROUPS = {"cpu": (32, 64, 128), "cuda": (32, 64, 128, 256)}  # supported by the kernels
FP8_CAPABILITY = (8, 9)  # least CUDA capability with fp8 products: Ada, Hopper and later


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check formats, schemes and granularities, and the devices that have kernels for them."""
    kind = str(quant.format)
    if kind == "intx" and quant.bits == 1 and quant.symmetric is not False:
        return "torchao rounds every weight to 0 at quant.bits=1 with quant.symmetric=true: set quant.symmetric=false"
    if device == "mps" or (device == "cpu" and kind == "float8_e4m3fn"):
        return f"torchao has no kernel for quant.format={kind} on {device}: set device=cuda, or quant=torchao_int8wo"
    if quant.embedding and kind == "int4":
        return "torchao packs int4 for its kernel: set quant.embedding=false, or quant=torchao_intx quant.bits=4"
    return (
        why_not_installed("torchao", "torchao")
        or (None if quant.format else f"torchao needs quant.format, one of {', '.join(BITS)}")
        or why_not_among("format", quant.format, BITS, "torchao")
        or why_not_among("bits", _bits(quant), BITS[kind], f"torchao's {kind}")
        or why_not_among("scheme", quant.scheme, SCHEMES[kind], f"torchao's {kind}")
        or _why_no_groups(quant, kind, device)
        or why_not_among(
            "symmetric", quant.symmetric, [True, False] if kind == "intx" else [kind != "int4"], f"torchao's {kind}"
        )
    )


def _bits(quant: QuantConfig) -> float | str | None:
    """The bits, which only intx needs to be told."""
    return "null" if quant.bits is None and quant.format == "intx" else quant.bits


def _why_no_groups(quant: QuantConfig, kind: str, device: str) -> str | None:
    grouped = quant.granularity == "per-group" or kind == "int4"
    if grouped and quant.group_size is None:
        return "torchao's groups need quant.group_size"
    if not grouped and quant.group_size is not None:
        return f"torchao's groups of quant.group_size={quant.group_size} need quant.granularity=per-group"
    if kind == "int4" and quant.group_size not in INT4_GROUPS[device]:
        return why_not_among("group_size", quant.group_size, INT4_GROUPS[device], f"torchao's int4 on {device}")
    whole = "per-tensor" if (kind, quant.scheme) == ("float8_e4m3fn", "dynamic") else "per-channel"
    allowed = {"int4": ["per-group"], "intx": ["per-channel", "per-group"]}.get(kind, [whole])
    return why_not_among("granularity", quant.granularity, allowed, f"torchao's {kind} {quant.scheme}")


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Replace the weight of each module by a tensor subclass; the module stays a Linear.

    Raises:
        ConfigError: the groups do not fit a module, or the device has no fp8.
    """
    _check(model, quant, names, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's import triggers torch deprecations
        from torchao.quantization import quantize_

        wanted = frozenset(names)
        model = model.to(device)
        if quant.format == "int4" and device.type == "cuda":
            _to_bfloat16(model, names)
        quantize_(model, _torchao_config(quant, device), filter_fn=lambda module, name: name in wanted)
    return model


def _to_bfloat16(model: nn.Module, names: tuple[str, ...]) -> None:
    """Cast modules to bfloat16, the kernel's only dtype; weights tied to them are unchanged."""
    import torch
    from torch import nn

    from quantlab.quantization.casting import compute_in

    for name in names:
        linear: Any = model.get_submodule(name)
        outside = linear.weight.dtype
        linear.weight = nn.Parameter(linear.weight.detach().to(torch.bfloat16), requires_grad=False)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias.detach().to(torch.bfloat16), requires_grad=False)
        compute_in(linear, torch.bfloat16, outside)


def _check(model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device) -> None:
    """Check that every module fits, since torchao skips others with only a log message."""
    import torch

    if quant.format == "float8_e4m3fn" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        found, needed = torch.cuda.get_device_capability(device), FP8_CAPABILITY
        raise ConfigError(
            f"torchao's fp8 needs a CUDA device of capability {needed[0]}.{needed[1]}, this one has "
            f"{found[0]}.{found[1]}: choose quant=torchao_int8wo"
        )
    for name in names:
        linear: Any = model.get_submodule(name)
        if quant.group_size is not None and linear.in_features % quant.group_size:
            raise ConfigError(
                f"torchao cannot cut the {linear.in_features} inputs of {name} into whole groups of "
                f"quant.group_size={quant.group_size}: choose a divisor, or quant.skip=['{name}']"
            )


def _torchao_config(quant: QuantConfig, device: torch.device) -> Any:
    """The configuration object, without torchao's compiler options, which would apply to the whole process."""
    from torchao import quantization

    if quant.format == "intx":
        return _intx(quant)
    if quant.format == "int4":
        return _int4(quant.group_size, device)
    makers = {
        ("int8", "weight-only"): quantization.Int8WeightOnlyConfig,
        ("int8", "dynamic"): quantization.Int8DynamicActivationInt8WeightConfig,
        ("float8_e4m3fn", "weight-only"): quantization.Float8WeightOnlyConfig,
        ("float8_e4m3fn", "dynamic"): quantization.Float8DynamicActivationFloat8WeightConfig,
    }
    return makers[str(quant.format), quant.scheme](set_inductor_config=False)


def _int4(group_size: int | None, device: torch.device) -> Any:
    """int4 in the layout whose kernel is part of torch; on CUDA torchao's plain layout would need `mslk`."""
    if device.type == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        return PrototypeInt4WeightOnlyConfig(group_size=group_size, set_inductor_config=False)
    from torchao.quantization import Int4WeightOnlyConfig
    from torchao.quantization.quantize_.workflows import Int4PackingFormat

    packing = Int4PackingFormat.TILE_PACKED_TO_4D
    return Int4WeightOnlyConfig(group_size=group_size, int4_packing_format=packing, set_inductor_config=False)


def _intx(quant: QuantConfig) -> Any:
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup
    from torchao.quantization.quant_primitives import MappingType

    assert quant.bits is not None  # see why_unsupported
    grouped = quant.granularity == "per-group"
    return IntxWeightOnlyConfig(
        weight_dtype=getattr(torch, f"int{int(quant.bits)}"),
        granularity=PerGroup(quant.group_size) if grouped else PerAxis(0),
        mapping_type=MappingType.ASYMMETRIC if quant.symmetric is False else MappingType.SYMMETRIC,
    )


def look_up(head: Any, ids: torch.Tensor) -> torch.Tensor:
    """Dequantize rows of a weight stored as one byte per level."""
    weight = head.weight
    scale, zero = weight.scale[ids].unsqueeze(-1), getattr(weight, "zero_point", None)
    levels = weight.qdata[ids].to(scale.dtype).unflatten(-1, (scale.shape[-2], -1))
    rows: torch.Tensor = (levels if zero is None else levels - zero[ids].unsqueeze(-1)) * scale
    return rows.flatten(start_dim=ids.ndim)


def is_quantized(module: Any) -> bool:
    """Whether it is a Linear whose weight is a torchao tensor of integers or fp8."""
    weight = module.weight
    if not type(weight).__module__.startswith("torchao."):
        return False
    inner, _ = weight.__tensor_flatten__()
    return any(getattr(weight, name).itemsize == 1 or not getattr(weight, name).is_floating_point() for name in inner)


def kernel(module: Any) -> str | None:
    """The tensor subclass, which selects the matmul, and its dtypes."""
    weight = module.weight
    name = type(weight).__name__
    if name.startswith("Int4"):
        return f"torchao {name}: aten::_weight_int4pack_mm{'_for_cpu' if weight.device.type == 'cpu' else ''}"
    levels = getattr(weight, "target_dtype", None)
    rounded = "" if levels is None else f", levels of {_dtype(levels)}"
    if getattr(weight, "act_quant_kwargs", None) is None:
        return f"torchao {name}{rounded}: dequantize, matmul"
    return f"torchao {name}: {_dtype(weight.qdata.dtype)} × {_dtype(weight.qdata.dtype)}"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
