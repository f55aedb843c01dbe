"""Bytes of a Linear in HQQ's layer: codes, a scale and a zero point for each group, the bias."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from quantlab.quantization.hqq_layer import GROUP_MULTIPLE, ROWS_PER_PACK, THREE_BIT_PARTS

NOT_A_MULTIPLE = f"HQQ's layer takes multiples of {GROUP_MULTIPLE}"
_INT32 = 4  # bytes


@dataclass(frozen=True)
class Shape:
    """A Linear and the dtype of everything in it that is not a code."""

    outputs: int
    inputs: int
    bias: bool
    float_bytes: int  # 4 in fp32

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.outputs * self.inputs + self.outputs * self.bias


def why_not(shape: Shape, bits: float, group_size: int) -> str | None:
    """Why HQQ cannot store it in groups along the inputs; None if it can."""
    if group_size % GROUP_MULTIPLE:
        return NOT_A_MULTIPLE
    if shape.inputs % group_size:
        return f"{shape.inputs} inputs are no whole groups of {group_size}"
    groups = shape.outputs * shape.inputs // group_size
    return f"{groups} groups do not pack in {bits:g} bit" if groups % ROWS_PER_PACK[bits] else None


def fitting(shapes: Collection[Shape], bits: Collection[float]) -> list[int]:
    """Group sizes in which HQQ can store every module in each of these bits, the smallest first."""
    most = math.gcd(*(shape.inputs for shape in shapes))
    return [
        size
        for size in range(GROUP_MULTIPLE, most + 1, GROUP_MULTIPLE)
        if not any(why_not(shape, some, size) for shape in shapes for some in bits)
    ]


def stored_bytes(shape: Shape, bits: float | None, group_size: int) -> int:
    """Bytes that the receipt shows.

    Args:
        shape: see `why_not`.
        bits: of a code; None: not quantized.
        group_size: weights per scale.
    """
    if bits is None:
        return shape.params * shape.float_bytes
    groups = shape.outputs * shape.inputs // group_size
    if bits == 3:  # ten rows of groups in one of int32
        codes = math.ceil(groups / THREE_BIT_PARTS) * group_size * _INT32
    else:
        codes = groups // ROWS_PER_PACK[bits] * group_size
    return codes + (2 * groups + shape.outputs * shape.bias) * shape.float_bytes
