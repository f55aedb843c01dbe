"""HQQ: half-quadratic quantization, affine, one scale and zero point per group of weights, no data needed.

`quant.backend` selects the kernels. The library's own functions print a line and fall back to other kernels; here every
module uses the requested kernel, or the cell fails. For kernels with 16-bit types only, inputs are cast at the border
of the module. `torchao_int4` and `gemlite` were tested on an H100; `aten`, which has no wheel, never.
Its layer is that of `hqq_layer`, on which bits and groups depend.
Source: https://github.com/dropbox/hqq, https://mobiusml.github.io/hqq_blog/
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from quantlab.quantization import hqq_layer
from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.hqq_layer import COMPUTES_IN, axis_of
from quantlab.quantization.select import replace
from quantlab.util.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibrate

DISTRIBUTIONS = ("hqq",)
LAYER = hqq_layer
READS = ("bits", "format", "granularity", "group_size", "symmetric", "axis", "backend")
INT4_INPUTS = 128  # of the inputs: 8 inner tiles of 16 (aten::_convert_weight_to_int4pack on CUDA)
INT4_OUTPUTS = 8
GEMLITE_MULTIPLE = 32  # gemlite.core.GemLiteLinearTriton.MIN_SIZE, both ways
MARLIN = (
    "HQQ's conversion to marlin accepts only layers without a group size, and since 0.2 every HQQ layer has one: it "
    "would convert none of them. Set quant.backend=torchao_int4, gemlite or null"
)


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check what the layer needs, and the kernels."""
    if quant.embedding and (axis_of(quant) != 1 or quant.backend in COMPUTES_IN):
        return "HQQ's embedding is looked up in groups along the inputs: set quant.axis=1 and quant.backend=null"
    return hqq_layer.why_unsupported(quant, device) or _why_no_backend(quant, device)


def _why_no_backend(quant: QuantConfig, device: str) -> str | None:
    backend = quant.backend
    if backend in (None, "pytorch"):
        return None
    if backend == "marlin":
        return MARLIN
    if device != "cuda":
        return f"HQQ's backend {backend} has kernels for CUDA only, not for {device}: set quant.backend=pytorch"
    what = f"HQQ's backend {backend}"
    if backend == "aten":
        return why_not_among("axis", axis_of(quant), [0], what) or why_not_installed(
            "hqq_aten", "hqq_aten", "build it from hqq/kernels in HQQ's sources, or set quant.backend=pytorch"
        )
    if backend == "gemlite":
        return (
            why_not_among("axis", axis_of(quant), [1], what)
            or why_not_among("bits", quant.bits, [8, 4, 2, 1], what)
            or why_not_among("group_size", quant.group_size, [16, 32, 64, 128, 256], what)
            or why_not_installed("gemlite", "gemlite")
        )
    return (
        why_not_among("axis", axis_of(quant), [1], what)
        or why_not_among("bits", quant.bits, [4], what)
        or why_not_among("group_size", quant.group_size, [32, 64, 128, 256], what)
    )


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Replace modules one by one on the device, freeing each old weight before the next.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    import torch

    hqq_layer.check_groups(model, quant, names)
    _check_shapes(model, names, quant.backend)
    how = hqq_layer.settings(quant)
    model.to(device)
    _use_backend(device, axis_of(quant), quant.backend)
    with torch.no_grad():
        for name in names:
            replace(model, name, _quantized(model.get_submodule(name), name, how, device, quant.backend))
    return model


def _quantized(linear: Any, name: str, how: dict[str, Any], device: torch.device, backend: str | None) -> nn.Module:
    """The quantized replacement of a Linear.

    Raises:
        ConfigError: the library kept its own module instead of the requested backend's.
    """
    import torch
    from hqq.core.quantize import HQQLinear

    from quantlab.quantization.casting import compute_in

    outside = linear.weight.dtype
    if backend not in COMPUTES_IN:
        return HQQLinear(linear, how, compute_dtype=outside, device=str(device))
    inside = getattr(torch, COMPUTES_IN[backend])
    with two_codes_a_byte():
        module: nn.Module = _convert(backend)(HQQLinear(linear, how, compute_dtype=inside, device=str(device)), None)
    if isinstance(module, HQQLinear):
        raise ConfigError(
            f"HQQ kept its own kernels for {name} although quant.backend={backend}: set quant.backend=null"
        )
    compute_in(module, inside, outside)
    return module


def _convert(backend: str) -> Any:
    """The library's conversion function; `prepare_for_inference` would change torch settings of the whole process."""
    if backend == "gemlite":
        from hqq.backends.gemlite import patch_hqq_to_gemlite

        return patch_hqq_to_gemlite
    from hqq.backends.torchao import patch_hqq_to_aoint4

    return patch_hqq_to_aoint4


@contextlib.contextmanager
def two_codes_a_byte() -> Iterator[None]:
    """Pack two codes per byte for torch's int4 kernel, as required since torch 2.5.

    HQQ 0.2.8 does so only up to torch 2.9: it compares `float(torch.__version__[:3])` with 2.5, so 2.11 reads as 2.1.
    """
    import torch
    from hqq.backends.torchao import HQQLinearTorchWeightOnlynt4 as Layer

    original = Layer.hqq_quants_to_torch_quants

    def packed(*arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        codes, scales, zeros = original(*arguments, **options)
        if codes.dtype == torch.int32:
            codes = (codes[:, ::2] << 4 | codes[:, 1::2]).to(torch.uint8)
        return codes, scales, zeros

    Layer.hqq_quants_to_torch_quants = packed
    try:
        yield
    finally:
        Layer.hqq_quants_to_torch_quants = original


def _check_shapes(model: nn.Module, names: tuple[str, ...], backend: str | None) -> None:
    """Check the shapes against the kernels of a backend."""
    if backend not in COMPUTES_IN:
        return
    outputs, inputs = (
        (GEMLITE_MULTIPLE, GEMLITE_MULTIPLE) if backend == "gemlite" else (INT4_OUTPUTS, INT4_INPUTS)
    )  # fmt: skip
    for name in names:
        linear: Any = model.get_submodule(name)
        if linear.out_features % outputs or linear.in_features % inputs:
            raise ConfigError(
                f"quant.backend={backend} multiplies by multiples of {outputs}×{inputs}, {name} is "
                f"{linear.out_features}×{linear.in_features}: set quant.backend=null, or quant.skip=['{name}']"
            )


def _use_backend(device: torch.device, axis: int, backend: str | None) -> None:
    """Set the backend, which is an attribute of HQQ's class; None: the CUDA extension if installed and applicable.

    Raises:
        ConfigError: the extension was requested but the library did not find it.
    """
    from hqq.core import quantize

    applies = device.type == "cuda" and axis == 0 and quantize.hqq_aten_is_available
    fast = backend == "aten" or (backend is None and applies)
    wanted = quantize.HQQBackend.ATEN if fast else quantize.HQQBackend.PYTORCH
    if fast and not applies:
        raise ConfigError("quant.backend=aten: HQQ cannot import its extension hqq_aten; set quant.backend=null")
    quantize.HQQLinear.set_backend(wanted)
