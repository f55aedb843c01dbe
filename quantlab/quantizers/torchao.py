"""torchao: weights in 8, 4 or any fewer bits behind a tensor subclass, through its configuration objects.

`intx` takes 1 to 8 bits, per channel or per group, symmetric or not, so that one of these can vary while the others
stay. It rounds to as many levels as there are bits and stores each level in a byte: its accuracy is that of the bits,
its size that of int8, and the receipt says so.
Source: https://github.com/pytorch/ao, torchao.quantization
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from quantlab.config import ConfigError
from quantlab.quantizers import why_not_among, why_not_installed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config import QuantConfig
    from quantlab.quantizers import Calibrate

DISTRIBUTIONS = ("torchao",)
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
CUDA_ONLY = ("int4", "float8_e4m3fn")
FP8_CAPABILITY = (8, 9)  # of a CUDA device: Ada, Hopper and later multiply in fp8


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Formats, schemes and granularities of its configuration objects, and where they have kernels."""
    kind = str(quant.format)
    if device == "mps" or (device == "cpu" and kind in CUDA_ONLY):
        return f"torchao has no kernel for quant.format={kind} on {device}: set device=cuda, or quant=torchao_int8wo"
    return (
        why_not_installed("torchao", "torchao")
        or (None if quant.format else f"torchao needs quant.format, one of {', '.join(BITS)}")
        or why_not_among("format", quant.format, BITS, "torchao")
        or why_not_among("bits", quant.bits, BITS[kind], f"torchao's {kind}")
        or why_not_among("scheme", quant.scheme, SCHEMES[kind], f"torchao's {kind}")
        or _why_no_groups(quant, kind)
        or why_not_among(
            "symmetric", quant.symmetric, [True, False] if kind == "intx" else [kind != "int4"], f"torchao's {kind}"
        )
    )


def _why_no_groups(quant: QuantConfig, kind: str) -> str | None:
    allowed = {"int4": ["per-group"], "intx": ["per-channel", "per-group"]}.get(kind, ["per-channel"])
    if quant.granularity == "per-group" and quant.group_size is None:
        return "torchao's groups need quant.group_size"
    if quant.granularity == "per-channel" and quant.group_size is not None:
        return f"quant.group_size={quant.group_size} needs quant.granularity=per-group"
    return why_not_among("granularity", quant.granularity, allowed, f"torchao's {kind}")


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Exchange the weight of each module for a subclass; the module stays a Linear.

    Raises:
        ConfigError: the groups do not fit a module, or the device has no fp8.
    """
    _check(model, quant, names, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of torch that torchao runs into when it is imported
        from torchao.quantization import quantize_

        wanted = frozenset(names)
        model = model.to(device)
        quantize_(model, _how(quant), filter_fn=lambda module, name: name in wanted)
    return model


def _check(model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device) -> None:
    """What does not fit, torchao leaves as it is and tells its log only."""
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


def _how(quant: QuantConfig) -> Any:
    """The configuration object. Compilers are left alone: torchao would set options of theirs for the whole process."""
    from torchao import quantization

    if quant.format == "intx":
        return _intx(quant)
    if quant.format == "int4":
        return quantization.Int4WeightOnlyConfig(group_size=quant.group_size, set_inductor_config=False)
    makers = {
        ("int8", "weight-only"): quantization.Int8WeightOnlyConfig,
        ("int8", "dynamic"): quantization.Int8DynamicActivationInt8WeightConfig,
        ("float8_e4m3fn", "weight-only"): quantization.Float8WeightOnlyConfig,
        ("float8_e4m3fn", "dynamic"): quantization.Float8DynamicActivationFloat8WeightConfig,
    }
    return makers[str(quant.format), quant.scheme](set_inductor_config=False)


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


def is_quantized(module: Any) -> bool:
    """A Linear whose weight is one of torchao's tensors and holds integers or fp8."""
    weight = module.weight
    if not type(weight).__module__.startswith("torchao."):
        return False
    inner, _ = weight.__tensor_flatten__()
    return any(getattr(weight, name).itemsize == 1 or not getattr(weight, name).is_floating_point() for name in inner)


def kernel(module: Any) -> str | None:
    """The tensor subclass, which chooses the multiplication, and whether activations are quantized as they come."""
    weight = module.weight
    _, context = weight.__tensor_flatten__()
    levels = context.get("target_dtype")
    rounded = f" of {str(levels).removeprefix('torch.')} levels" if levels is not None else ""
    dynamic = context.get("act_quant_kwargs") is not None
    return f"torchao {type(weight).__name__}{rounded}: {'int8 × int8' if dynamic else 'dequantize, matmul'}"
