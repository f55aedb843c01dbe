"""No quantization: the baseline, in fp32 unless `runtime.dtype` says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibrate

DISTRIBUTIONS: tuple[str, ...] = ()
READS: tuple[str, ...] = ()


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """The baseline runs everywhere."""
    return None


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Move the model to the device."""
    return model.to(device)


def is_quantized(module: nn.Module) -> bool:
    """Never."""
    return False


def kernel(module: nn.Module) -> str | None:
    """Plain torch: no kernel to report."""
    return None
