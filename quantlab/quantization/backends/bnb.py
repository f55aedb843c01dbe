"""bitsandbytes: LLM.int8(), and 4-bit nf4 or fp4 in blocks of 64 weights.

int8: one scale per output channel; activations are rounded to fp16 and quantized to int8 per token, except
columns that hold a value of at least 6 (arXiv 2208.07339). 4 bit: one absmax per block in fp32, or in 8 bit
with `double_quant` (QLoRA, arXiv 2305.14314). On a CPU with AVX512-BF16 the first call repacks the 4-bit weights
for a fused kernel that rounds activations and absmax to bf16; the saved format is unaffected.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.select import replace
from quantlab.util.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibrate

DISTRIBUTIONS = ("bitsandbytes",)
READS = ("bits", "format", "granularity", "group_size", "symmetric", "double_quant")
RECOVERS = ("lora",)
NO_EMBEDDING = "bitsandbytes repacks its weights at run time, so that single rows cannot be read"
BITS = {"int8": 8, "nf4": 4, "fp4": 4}
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # of bitsandbytes.functional.quantize_4bit
DEFAULT_BLOCK = 64  # weights
OUTLIER_THRESHOLD = 6.0  # LLM.int8() paper, section 3.2; also the default of transformers
CPU_PACK_ROWS = 32  # out_features must be a multiple: bitsandbytes.functional._convert_weight_packed_for_cpu


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check formats and block sizes."""
    if quant.format == "int8" and quant.group_size is not None:
        return "bitsandbytes int8 has one scale per channel: leave quant.group_size null"
    if quant.format == "int8" and quant.double_quant:
        return "quant.double_quant applies to nf4 and fp4 only"
    return (
        why_not_installed("bitsandbytes", "bitsandbytes")
        or why_not_among("format", quant.format or "null", BITS, "bitsandbytes")
        or why_not_among("bits", quant.bits, [BITS[str(quant.format)]], f"bitsandbytes' {quant.format}")
        or why_not_among("group_size", quant.group_size, BLOCK_SIZES, "bitsandbytes")
        or _why_contradictory(quant)
    )


def _why_contradictory(quant: QuantConfig) -> str | None:
    """Why the other keys contradict the format, which fixes them."""
    whole, who = quant.format == "int8", f"bitsandbytes' {quant.format}"
    return (
        why_not_among("scheme", quant.scheme, ["dynamic" if whole else "weight-only"], who)
        or why_not_among("granularity", quant.granularity, ["per-channel" if whole else "per-group"], who)
        or why_not_among("symmetric", quant.symmetric, [True], who)
    )


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Replace modules one by one; the library quantizes a weight when it moves to its device.

    Raises:
        ConfigError: blocks would straddle the rows of a module.
    """
    import torch

    build = _linear_int8 if quant.format == "int8" else _linear_4bit
    with torch.no_grad():
        for name in names:
            linear: Any = model.get_submodule(name)
            _check_blocks(name, linear, quant)
            replace(model, name, build(linear, quant, device))
    return model.to(device)


def _check_blocks(name: str, linear: nn.Linear, quant: QuantConfig) -> None:
    block = _block_size(quant)
    if quant.format != "int8" and linear.in_features % block:
        raise ConfigError(
            f"bitsandbytes cannot cut {name} (in_features={linear.in_features}) into whole blocks of "
            f"quant.group_size={block}: choose a divisor, or quant.skip=['{name}']"
        )


def _block_size(quant: QuantConfig) -> int:
    return quant.group_size or DEFAULT_BLOCK


def _linear_int8(linear: nn.Linear, quant: QuantConfig, device: torch.device) -> nn.Module:
    bnb = _bitsandbytes()
    layer = bnb.nn.Linear8bitLt(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER_THRESHOLD,
        device="meta",
    )
    # Only a weight moved from the CPU is quantized.
    layer.weight = bnb.nn.Int8Params(linear.weight.cpu(), requires_grad=False).to(device)
    layer.bias = linear.bias
    return layer


def _linear_4bit(linear: nn.Linear, quant: QuantConfig, device: torch.device) -> nn.Module:
    bnb = _bitsandbytes()
    layer = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=linear.weight.dtype,
        compress_statistics=quant.double_quant,
        quant_type=quant.format,
        device="meta",
    )
    layer.weight = bnb.nn.Params4bit(
        linear.weight,
        requires_grad=False,
        blocksize=_block_size(quant),
        compress_statistics=quant.double_quant,
        quant_type=quant.format,
        module=layer,
    ).to(device)
    layer.bias = linear.bias
    # The repacking for AVX512-BF16 asserts on other shapes.
    if linear.out_features % CPU_PACK_ROWS:
        layer.support_avx512bf16_for_cpu = False
    return layer


def _bitsandbytes() -> Any:
    """Import the library without letting it fetch a compiled kernel from the hub (package `kernels`).

    Its loggers are silenced: at every call they report that fp32 is cast to fp16 and that the kernel is missing.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if "bitsandbytes" not in sys.modules:
        with _hidden("kernels"):
            import bitsandbytes
    import bitsandbytes

    return bitsandbytes


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Within the block, `import name` fails as if it were not installed."""
    before = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]  # how the import system spells it
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(before)


@contextmanager
def trainable(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within the block, no 4-bit weight is repacked on its first call, as the fused kernel has no gradient."""
    from quantlab.quantization.adapters import below

    layers: list[Any] = [below(model.get_submodule(name)) for name in names]
    before = [layer.support_avx512bf16_for_cpu for layer in layers]
    try:
        for layer in layers:
            layer.support_avx512bf16_for_cpu = False
        yield
    finally:
        for layer, supported in zip(layers, before, strict=True):
            layer.support_avx512bf16_for_cpu = supported


def is_quantized(module: Any) -> bool:
    """Whether it is a bitsandbytes module with an int8 weight, or a packed 4-bit one with its quantization state."""
    import torch

    nn = _bitsandbytes().nn
    if isinstance(module, nn.Linear8bitLt):
        return module.weight.dtype is torch.int8
    return isinstance(module, nn.Linear4bit) and module.weight.quant_state is not None


def kernel(module: Any) -> str | None:
    """The library's CUDA kernel, or the code path it takes on this CPU."""
    import torch

    if module.weight.device.type != "cpu":
        return f"bitsandbytes, {module.weight.device.type} kernel"
    if hasattr(module, "state"):
        fast = torch.backends.cpu.get_cpu_capability() == "AVX512"
        return "bitsandbytes: int8 by int8, torch._int_mm" if fast else "bitsandbytes: int8 as fp32 matmul, no AVX512"
    if module.support_avx512bf16_for_cpu:
        return "bitsandbytes: fused 4 bit, AVX512-BF16 (activations and absmax in bf16)"
    return "bitsandbytes: dequantize, matmul"
