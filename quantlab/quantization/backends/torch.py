"""torch dynamic int8: int8 weights, and uint8 activations with one scale per tensor computed at run time.

The x86 engines (fbgemm, onednn, x86) use 7 of the 8 bits of activations, so that 16-bit sums cannot overflow;
qnnpack uses all 8. The same configuration is therefore slightly more accurate on ARM.

Source: `torch.ao.quantization.quantize_dynamic`, deprecated since torch 2.10 and still present in 2.15.
"""

from __future__ import annotations

import importlib.util
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.quantization.base import NotHere, why_not_among, why_not_installed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.config.types import Dtype
    from quantlab.quantization.base import Calibrate

DISTRIBUTIONS = ("torch",)
READS = ("bits", "format", "granularity", "symmetric")
NO_EMBEDDING = "torch packs the weights of dynamic int8, so that single rows cannot be read"
DTYPES: tuple[Dtype, ...] = ("float32",)  # the only dtype of quantized::linear_dynamic


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check the device, and that torch still has the deprecated API."""
    if device != "cpu":
        return f"torch's dynamic int8 has kernels for the CPU only, not for {device}: set device=cpu"
    return (
        why_not_installed("torch", "torch")
        or why_not_among("format", quant.format, ["int8"], "torch")
        or why_not_among("bits", quant.bits, [8], "torch")
        or why_not_among("scheme", quant.scheme, ["dynamic"], "torch")
        or why_not_among("granularity", quant.granularity, ["per-tensor", "per-channel"], "torch")
        or why_not_among("symmetric", quant.symmetric, [True], "torch")
        or _why_removed()
    )


def _why_removed() -> str | None:
    found = importlib.util.find_spec("torch")
    roots = found.submodule_search_locations if found else None
    if roots and any((Path(root) / "ao" / "quantization" / "quantize.py").exists() for root in roots):
        return None
    return NotHere(
        f"torch {version('torch')} no longer has torch.ao.quantization.quantize_dynamic (deprecated since 2.10): "
        "install an older torch, or use quant=quanto_int8"
    )


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Convert in place. Weights: symmetric int8, one scale per tensor (or per output channel)."""
    import torch
    from torch.ao import quantization

    _use_some_engine()
    per_channel = quant.granularity == "per-channel"
    how = quantization.per_channel_dynamic_qconfig if per_channel else quantization.default_dynamic_qconfig
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation; `why_unsupported` reports the removal
        return quantization.quantize_dynamic(
            model.to(device), dict.fromkeys(names, how), dtype=torch.qint8, inplace=True
        )


def _use_some_engine() -> None:
    """Select an engine, since some builds start with the engine `none`, which cannot multiply."""
    import torch

    engines = torch.backends.quantized
    if engines.engine == "none":
        engines.engine = next(name for name in engines.supported_engines if name != "none")


def is_quantized(module: Any) -> bool:
    """Whether it is a dynamic Linear with qint8 weights, not float16."""
    import torch
    from torch.ao.nn.quantized import dynamic

    return isinstance(module, dynamic.Linear) and module._packed_params.dtype is torch.qint8


def kernel(module: nn.Module) -> str | None:
    """The engine; `x86` means oneDNN if the CPU has VNNI and the weights are symmetric, else FBGEMM."""
    import torch

    return f"quantized::linear_dynamic, engine {torch.backends.quantized.engine}"
