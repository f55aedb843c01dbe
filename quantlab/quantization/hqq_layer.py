"""HQQ's layer: a Linear with packed codes, and a scale and a zero point for each group of weights.

Bits: 8, 4, 3, 2, 1, and 1.58: three levels (0, 1, 2), which the library stores in 2-bit fields, so that ternary
is as large as 2 bit. 3 bit packs ten weights into an int32 (3.2 bits each). Scales and zero points have the model's
dtype: in fp32 with groups of 64 they cost one bit per weight.

Codes may be chosen by HQQ or by any other method (`put`).
Source: https://github.com/dropbox/hqq
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
    from quantlab.quantization.rounding import Rounded

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


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check bits, group size and scheme; the layer itself works on every device."""
    if quant.bits is None or quant.group_size is None:
        return "HQQ needs quant.bits and quant.group_size"
    if quant.group_size % GROUP_MULTIPLE:
        return f"HQQ's group size is a multiple of {GROUP_MULTIPLE}, but quant.group_size={quant.group_size} is not"
    return (
        why_not_installed("hqq", "hqq")
        or why_not_among("bits", quant.bits, ROWS_PER_PACK, "HQQ")
        or why_not_among("scheme", quant.scheme, ["weight-only"], "HQQ")
        or why_not_among("granularity", quant.granularity, ["per-group"], "HQQ")
        or why_not_among("symmetric", quant.symmetric, [False], "HQQ")
        or _why_other_format(quant)
    )


def _why_other_format(quant: QuantConfig) -> str | None:
    """Why a format was asked for that the bits, which HQQ reads, do not give; that of the option's file may stay."""
    stays = option("quant", quant.name)["format"] if quant.name in names("quant") else None
    format = None if quant.format == stays else quant.format
    return why_not_among("format", format, [FORMATS[quant.bits or 0]], f"HQQ with quant.bits={quant.bits:g}")


def check_groups(model: nn.Module, quant: QuantConfig, names: tuple[str, ...]) -> None:
    """Refuse groups that do not divide: the library lets them straddle rows, and breaks if their number does not pack.

    Raises:
        ConfigError: names the module.
    """
    for name in names:
        if why := why_not_cut(model, quant, name):
            raise ConfigError(
                f"{why} of quant.group_size={quant.group_size}: choose a divisor, or quant.skip=['{name}']"
            )


def why_not_cut(model: nn.Module, quant: QuantConfig, name: str) -> str | None:
    """Why a module has no whole groups; None if it has."""
    assert quant.bits is not None  # checked by why_unsupported
    assert quant.group_size is not None
    linear: Any = model.get_submodule(name)
    axis = axis_of(quant)
    across = linear.in_features if axis == 1 else linear.out_features
    groups = linear.weight.numel() // quant.group_size
    if across % quant.group_size == 0 and (axis == 0 or groups % ROWS_PER_PACK[quant.bits] == 0):
        return None
    shape = f"{linear.out_features}×{linear.in_features}"
    return f"HQQ cannot cut {name} ({shape}) along axis {axis} into whole groups"


def axis_of(quant: QuantConfig) -> int:
    """0: groups along the outputs, 1: along the inputs."""
    return 1 if quant.axis is None else quant.axis


def settings(quant: QuantConfig) -> dict[str, Any]:
    """The library's settings of a layer."""
    from hqq.core.quantize import BaseQuantizeConfig

    assert quant.bits is not None  # checked by why_unsupported
    bits = int(quant.bits) if quant.bits.is_integer() else quant.bits
    found: dict[str, Any] = BaseQuantizeConfig(nbits=bits, group_size=quant.group_size, axis=axis_of(quant))
    return found


def put(model: nn.Module, name: str, rounded: Rounded, quant: QuantConfig, device: torch.device) -> None:
    """Replace a Linear by HQQ's layer with codes, scales and zero points that another method chose."""
    from hqq.core.quantize import HQQLinear

    linear: Any = model.get_submodule(name)
    how = settings(quant)
    how["weight_quant_params"]["optimize"] = False  # its codes are replaced
    layer = HQQLinear(linear, how, compute_dtype=linear.weight.dtype, device=str(device))
    repack(layer, rounded)
    replace(model, name, layer)


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


@contextlib.contextmanager
def trainable(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within the block, gradients pass through the layers, as they always do."""
    yield


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
