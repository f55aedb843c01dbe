"""optimum-quanto: int8, int4, int2 and fp8 weights, and int8 weights with static int8 or fp8 activations.

8-bit weights are symmetric with one scale per output channel. int4 and int2 are affine in groups of 128
weights, or of the next smaller multiple of 32 that divides `in_features` (96 for 192), chosen by the library.
They need `torch.no_grad`, as `torch.inference_mode` cannot make views of these tensor classes.
Source: https://github.com/huggingface/optimum-quanto
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.select import HEAD
from quantlab.util.errors import ConfigError, ExportError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibrate

DISTRIBUTIONS = ("optimum-quanto",)
READS = ("bits", "format", "activations", "granularity", "group_size", "symmetric")
BITS = {"int8": 8, "int4": 4, "int2": 2, "float8_e4m3fn": 8, "float8_e5m2": 8}
ACTIVATIONS = ("int8", "float8_e4m3fn", "float8_e5m2")
GROUP_SIZE = 128  # largest group size that the library tries
QUANTIZES_OUTPUT = "quantizes_output"  # a key of a module's traits


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check that library and device support the format."""
    formats = [quant.format, quant.activations]
    if device == "mps" and any(str(name).startswith("float8") for name in formats):
        return "torch has no float8 on mps"
    if quant.scheme == "static" and quant.activations is None:
        return f"a static scheme needs quant.activations, one of {', '.join(ACTIVATIONS)}"
    if quant.scheme != "static" and quant.activations is not None:
        return f"quant.activations={quant.activations} needs quant.scheme=static"
    if quant.embedding and BITS.get(str(quant.format)) != 8:
        return f"quanto splits rows of {quant.format} into groups: set quant.embedding=false, or quant=quanto_int8"
    return (
        why_not_installed("optimum", "optimum-quanto")
        or why_not_among("format", quant.format or "null", BITS, "quanto")
        or why_not_among("bits", quant.bits, [BITS[str(quant.format)]], f"quanto's {quant.format}")
        or why_not_among("activations", quant.activations, ACTIVATIONS, "quanto")
        or why_not_among("scheme", quant.scheme, ["weight-only", "static"], "quanto")
        or _why_other_groups(quant)
    )


def _why_other_groups(quant: QuantConfig) -> str | None:
    """Why the granularity is not that of the format, which fixes it."""
    grouped, who = BITS[str(quant.format)] < 8, f"quanto's {quant.format}"
    sizes = [GROUP_SIZE] if grouped else []
    return (
        why_not_among("granularity", quant.granularity, ["per-group" if grouped else "per-channel"], who)
        or why_not_among("group_size", quant.group_size, sizes, f"{who}, which chooses groups itself,")
        or why_not_among("symmetric", quant.symmetric, [not grouped], who)
    )


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Quantize in place, freeze, then calibrate if the scheme is static.

    The library's examples freeze last. Activation scales are the same, but unfrozen weights would be quantized again
    at every token of the calibration.

    Raises:
        ConfigError: the calibration data did not reach a module.
    """
    from optimum.quanto import Calibration, freeze, quantize

    model.to(device)
    activations = f"q{quant.activations}" if quant.activations else None
    quantize(model, weights=f"q{quant.format}", activations=activations, include=list(names))
    freeze(model)
    if quant.format in ("int4", "int2"):
        _prepare_unpack(BITS[quant.format], device)
    if activations:
        _keep_logits_float(model, names)
        with Calibration():
            calibrate(model)
        _check_calibrated(model, names)
    return model


def look_up(head: Any, ids: torch.Tensor) -> torch.Tensor:
    """Dequantize rows of an 8-bit weight."""
    weight = head.weight
    rows: torch.Tensor = weight._data[ids].to(weight._scale.dtype) * weight._scale[ids]
    return rows.flatten(start_dim=ids.ndim)


def _keep_logits_float(model: nn.Module, names: tuple[str, ...]) -> None:
    """Keep the logits in floats: nothing multiplies them, and transformers' logits processors need floats."""
    if HEAD in names:
        head: Any = model.get_submodule(HEAD)
        head.disable_output_quantization()


def _check_calibrated(model: nn.Module, names: tuple[str, ...]) -> None:
    """Check that every module was calibrated: an input scale of exactly 1 is the initial value."""
    modules: list[tuple[str, Any]] = [(name, model.get_submodule(name)) for name in names]
    if missed := [name for name, module in modules if bool((module.input_scale == 1).all())]:
        raise ConfigError(f"the calibration data never reached {', '.join(missed)}: raise calibration.fraction")


def _prepare_unpack(bits: int, device: torch.device) -> None:
    """Compile the library's unpacking of int4 and int2 in advance, or fall back to torch operations.

    The library compiles C++ (CUDA) at first use, which takes 40 s once per machine, into its folder in
    site-packages. Without a compiler, or if that folder is read-only, torch operations give the same integers a
    little slower.
    """
    import torch
    from optimum.quanto.library.extensions import get_extension, is_extension_available

    extension = {"cpu": "quanto_cpp", "cuda": "quanto_cuda"}.get(device.type)
    if extension is None or not is_extension_available(extension):
        return
    try:
        torch.ops.quanto.unpack(torch.zeros(8, 8, dtype=torch.uint8, device=device), bits)
    except Exception as error:  # a compiler can fail in any way
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        warnings.warn(f"{extension} does not build ({first_line}): unpacking with torch instead", stacklevel=2)
        get_extension(extension)._lib = SimpleNamespace(unpack=_unpack)


def _unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpack integers of `bits` bits from uint8 (n, …), lowest bits first: uint8 (n * 8 // bits, …)."""
    import torch

    return torch.cat([(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)])


def is_quantized(module: nn.Module) -> bool:
    """Whether it is a quantized module with a frozen weight."""
    from optimum.quanto import QModuleMixin

    return isinstance(module, QModuleMixin) and module.frozen


def traits(module: Any) -> dict[str, bool | int | float | str]:
    """Whether a module quantizes its output, which calibration disables if nothing uses it."""
    if module.activation_qtype is None:
        return {}
    return {QUANTIZES_OUTPUT: module._quantize_hooks["output"].id in module._forward_hooks}


def adopt(module: Any, traits: Mapping[str, bool | int | float | str]) -> None:
    """See `export.portable.Remembers`."""
    expected = {QUANTIZES_OUTPUT} if module.activation_qtype else set()
    if traits.keys() != expected or not all(isinstance(value, bool) for value in traits.values()):
        raise ExportError(f"quanto's modules have the traits {expected or 'none'}, but the manifest has {dict(traits)}")
    if expected and not traits[QUANTIZES_OUTPUT]:
        module.disable_output_quantization()


def kernel(module: Any) -> str | None:
    """The kernel: fast kernels have their own tensor classes, others dequantize or multiply int8 by int8."""
    weight = module.weight
    name = type(weight).__name__
    if name == "WeightQBytesTensor":
        return _kernel_8bit(weight, module.activation_qtype)
    if name == "WeightQBitsTensor":
        return f"quanto: {_unpacker(weight.device.type)} unpacking, dequantize, matmul"
    return f"quanto: {name.removesuffix('QBytesTensor').removesuffix('WeightQBitsTensor')}"


def _kernel_8bit(weight: Any, activations: Any) -> str:
    """The 8-bit kernel, chosen by dtypes as in optimum.quanto.library.qbytes_mm."""
    import torch

    if activations is not None and activations.dtype is torch.int8 and weight.qtype.dtype is torch.int8:
        return "quanto: int8 by int8, torch._int_mm"
    if weight.device.type == "cpu" and weight.dtype is torch.bfloat16 and weight.qtype.dtype is torch.int8:
        return "quanto: torch._weight_int8pack_mm"
    return "quanto: dequantize, matmul"


def _unpacker(device: str) -> str:
    from optimum.quanto.library.extensions import get_extension, is_extension_available

    extension = {"cpu": "quanto_cpp", "cuda": "quanto_cuda"}.get(device)
    if extension is None or not is_extension_available(extension):
        return "torch"
    return "torch" if isinstance(get_extension(extension)._lib, SimpleNamespace) else extension
