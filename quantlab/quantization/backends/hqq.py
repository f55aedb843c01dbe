"""HQQ: half-quadratic quantization, affine, one scale and zero point per group of weights, no data needed.

Bits: 8, 4, 3, 2, 1, and 1.58: three levels (0, 1, 2), which the library stores in 2-bit fields, so that ternary
is as large as 2 bit. 3 bit packs ten weights into an int32 (3.2 bits each). Scales and zero points have the model's
dtype: in fp32 with groups of 64 they cost one bit per weight.

`quant.backend` selects the kernels. The library's own functions print a line and fall back to other kernels; here every
module uses the requested kernel, or the cell fails. For kernels with 16-bit types only, inputs are cast at the border
of the module. `torchao_int4` and `gemlite` were tested on an H100; `aten`, which has no wheel, never.
Source: https://github.com/dropbox/hqq, https://mobiusml.github.io/hqq_blog/
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from quantlab.config.options import names, option
from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.select import replace
from quantlab.util.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quantlab.config.schema import QuantConfig
    from quantlab.quantization.base import Calibrate
    from quantlab.quantization.rounding import Rounded

DISTRIBUTIONS = ("hqq",)
READS = ("bits", "format", "granularity", "group_size", "symmetric", "axis", "backend")
RECOVERS = ("scales", "weights", "lora")
FORMATS = {8: "uint8", 4: "uint4", 3: "uint3", 2: "uint2", 1.58: "ternary", 1: "uint1"}  # by bits
# bits → rows of groups packed into one; 3 bit packs ten, with padding
ROWS_PER_PACK = {8: 1, 4: 2, 3: 1, 2: 4, 1.58: 4, 1: 8}
THREE_BIT_PARTS = 10  # per int32, the last one padded
GROUP_MULTIPLE = 8  # required by hqq.core.quantize.hqq_base_quant_config
COMPUTES_IN = {
    "torchao_int4": "bfloat16",
    "gemlite": "float16",
}  # backend → torch dtype; other backends use the model's
INT4_INPUTS = 128  # of the inputs: 8 inner tiles of 16 (aten::_convert_weight_to_int4pack on CUDA)
INT4_OUTPUTS = 8
GEMLITE_MULTIPLE = 32  # gemlite.core.GemLiteLinearTriton.MIN_SIZE, both ways
MARLIN = (
    "HQQ's conversion to marlin accepts only layers without a group size, and since 0.2 every HQQ layer has one: it "
    "would convert none of them. Set quant.backend=torchao_int4, gemlite or null"
)


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check bits, group size and scheme."""
    if quant.bits is None or quant.group_size is None:
        return "HQQ needs quant.bits and quant.group_size"
    if quant.group_size % GROUP_MULTIPLE:
        return f"HQQ's group size is a multiple of {GROUP_MULTIPLE}, but quant.group_size={quant.group_size} is not"
    if quant.embedding and (_axis(quant) != 1 or quant.backend in COMPUTES_IN):
        return "HQQ's embedding is looked up in groups along the inputs: set quant.axis=1 and quant.backend=null"
    return (
        why_not_installed("hqq", "hqq")
        or why_not_among("bits", quant.bits, ROWS_PER_PACK, "HQQ")
        or why_not_among("scheme", quant.scheme, ["weight-only"], "HQQ")
        or why_not_among("granularity", quant.granularity, ["per-group"], "HQQ")
        or why_not_among("symmetric", quant.symmetric, [False], "HQQ")
        or _why_other_format(quant)
        or _why_no_backend(quant, device)
    )


def _why_other_format(quant: QuantConfig) -> str | None:
    """Why a format was asked for that the bits, which HQQ reads, do not give; that of the option's file may stay."""
    stays = option("quant", quant.name)["format"] if quant.name in names("quant") else None
    format = None if quant.format == stays else quant.format
    return why_not_among("format", format, [FORMATS[quant.bits or 0]], f"HQQ with quant.bits={quant.bits:g}")


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
        return why_not_among("axis", _axis(quant), [0], what) or why_not_installed(
            "hqq_aten", "hqq_aten", "build it from hqq/kernels in HQQ's sources, or set quant.backend=pytorch"
        )
    if backend == "gemlite":
        return (
            why_not_among("axis", _axis(quant), [1], what)
            or why_not_among("bits", quant.bits, [8, 4, 2, 1], what)
            or why_not_among("group_size", quant.group_size, [16, 32, 64, 128, 256], what)
            or why_not_installed("gemlite", "gemlite")
        )
    return (
        why_not_among("axis", _axis(quant), [1], what)
        or why_not_among("bits", quant.bits, [4], what)
        or why_not_among("group_size", quant.group_size, [32, 64, 128, 256], what)
    )


def _axis(quant: QuantConfig) -> int:
    return 1 if quant.axis is None else quant.axis


def setup(
    model: nn.Module, quant: QuantConfig, names: tuple[str, ...], device: torch.device, calibrate: Calibrate
) -> nn.Module:
    """Replace modules one by one on the device, freeing each old weight before the next.

    Raises:
        ConfigError: the group size does not fit a module.
    """
    import torch

    check_groups(model, quant, names)
    _check_shapes(model, names, quant.backend)
    how = _how(quant)
    model.to(device)
    _use_backend(device, _axis(quant), quant.backend)
    with torch.no_grad():
        for name in names:
            replace(model, name, _quantized(model.get_submodule(name), name, how, device, quant.backend))
    return model


def put(model: nn.Module, name: str, rounded: Rounded, quant: QuantConfig, device: torch.device) -> None:
    """Replace a Linear by HQQ's layer with codes, scales and zero points that another method chose."""
    from hqq.core.quantize import HQQLinear

    linear: Any = model.get_submodule(name)
    how = _how(quant)
    how["weight_quant_params"]["optimize"] = False  # its codes are replaced
    layer = HQQLinear(linear, how, compute_dtype=linear.weight.dtype, device=str(device))
    repack(layer, rounded)
    replace(model, name, layer)


@contextlib.contextmanager
def trainable(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within the block, gradients pass through the layers, as they always do."""
    yield


def repack(layer: Any, rounded: Rounded) -> None:
    """Give a layer of groups along the inputs other codes, scales and zero points of the same shapes, in place."""
    from hqq.core.quantize import Quantizer

    meta = layer.meta
    layer.W_q.data = Quantizer.pack[meta["packing"]](rounded.codes.reshape(-1, meta["group_size"])).to(layer.device)
    for key, values in (("scale", rounded.levels.scale), ("zero", rounded.levels.zero)):
        meta[key] = values.reshape(-1, 1).to(layer.device, layer.compute_dtype)


def unpack(layer: Any) -> Rounded:
    """The codes, scales and zero points of a layer with groups along the inputs; scales and zero points not copied."""
    from hqq.core.quantize import Quantizer

    from quantlab.quantization.rounding import Levels, Rounded

    meta = layer.meta
    outputs, inputs = meta["shape"]
    groups = inputs // meta["group_size"]
    codes = Quantizer.unpack[meta["packing"]](layer.W_q)[: outputs * groups]  # 3 bit: the rest is padding
    scale, zero = (meta[key].reshape(outputs, groups, 1) for key in ("scale", "zero"))
    return Rounded(codes.reshape(outputs, inputs).float(), Levels(scale, zero, round(2 ** meta["nbits"] - 1)))


def _how(quant: QuantConfig) -> dict[str, Any]:
    from hqq.core.quantize import BaseQuantizeConfig

    assert quant.bits is not None  # checked by why_unsupported
    bits = int(quant.bits) if quant.bits.is_integer() else quant.bits
    found: dict[str, Any] = BaseQuantizeConfig(nbits=bits, group_size=quant.group_size, axis=_axis(quant))
    return found


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


def check_groups(model: nn.Module, quant: QuantConfig, names: tuple[str, ...]) -> None:
    """Refuse groups that do not divide: the library lets them straddle rows, and breaks if their number does not pack.

    Raises:
        ConfigError: names the module.
    """
    assert quant.bits is not None  # checked by why_unsupported
    assert quant.group_size is not None
    bits, group_size, axis = quant.bits, quant.group_size, _axis(quant)
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


def look_up(head: Any, ids: torch.Tensor) -> torch.Tensor:
    """Dequantize rows of a weight that is grouped along its inputs; only their codes are unpacked.

    `hqq.core.bitpack` splits the rows into as many equal parts as codes fit into a number; the first part is in the
    highest bits.
    """
    import torch

    packed, meta = head.W_q, head.meta
    bits = {1.58: 2}.get(meta["nbits"], int(meta["nbits"]))
    per_row = meta["shape"][1] // meta["group_size"]
    groups = ids.unsqueeze(-1) * per_row + torch.arange(per_row, device=ids.device)
    part, at = groups // packed.shape[0], groups % packed.shape[0]
    parts = THREE_BIT_PARTS if bits == 3 else ROWS_PER_PACK[meta["nbits"]]
    shift = bits * (parts - 1 - part)
    codes = (packed[at] >> shift.unsqueeze(-1).to(packed.dtype)) & (2**bits - 1)
    rows: torch.Tensor = (codes.to(meta["scale"].dtype) - meta["zero"][groups]) * meta["scale"][groups]
    return rows.flatten(start_dim=ids.ndim)


def is_quantized(module: Any) -> bool:
    """Whether it is a module of HQQ or one of its backends with a weight of packed integers."""
    packed = getattr(module, "weight_int4pack" if _backend_of(module) == "torchao_int4" else "W_q", None)
    return _backend_of(module) is not None and packed is not None and not packed.is_floating_point()


def stored_bits(module: Any) -> float | None:
    """Bits of a code; None for the layers of other kernels, which do not tell."""
    return float(module.meta["nbits"]) if _backend_of(module) == "core" else None


def kernel(module: Any) -> str | None:
    """The kernel: the module's class, and for HQQ's own class its current backend."""
    backend = _backend_of(module)
    if backend == "torchao_int4":
        return f"HQQ torchao_int4: aten::_weight_int4pack_mm in {COMPUTES_IN[backend]}"
    if backend == "gemlite":
        return f"HQQ gemlite: {type(module).__name__} in {COMPUTES_IN[backend]}"
    return f"HQQ {module.backend.name}: dequantize, matmul"


def _backend_of(module: nn.Module) -> str | None:
    """The backend of a module by its class; `core` is HQQ's own."""
    where = type(module).__module__
    backends = {"hqq.core.quantize": "core", "hqq.backends.torchao": "torchao_int4", "gemlite.core": "gemlite"}
    return backends.get(where)
