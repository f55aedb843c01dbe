"""Bits of each module as a grid: one row per layer, one column per kind of module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LAYER = re.compile(r"model\.(encoder|decoder)\.layers\.(\d+)\.(.+)")
_KINDS = {  # module of a layer → heading; × marks the cross-attention
    **{f"self_attn.{name}_proj": name for name in ("q", "k", "v", "out")},
    **{f"encoder_attn.{name}_proj": f"×{name}" for name in ("q", "k", "v", "out")},
    "fc1": "fc1",
    "fc2": "fc2",
}


@dataclass(frozen=True)
class Grid:
    """Headings, and texts of each row, the first of which names the layer."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def by_layer(bits: Mapping[str, float | None]) -> Grid:
    """Arrange modules of layers; others are left out.

    Args:
        bits: by the module's name in transformers; None: not quantized.
    """
    layers: dict[str, dict[str, str]] = {}
    for name, value in bits.items():
        if (place := _LAYER.fullmatch(name)) and place[3] in _KINDS:
            layers.setdefault(f"{place[1]} {place[2]}", {})[place[3]] = in_words(value)
    kinds = [kind for kind in _KINDS if any(kind in row for row in layers.values())]
    rows = tuple((layer, *(row.get(kind, "") for kind in kinds)) for layer, row in layers.items())
    return Grid(("layer", *(_KINDS[kind] for kind in kinds)), rows)


def in_words(bits: float | None) -> str:
    """`4`, `1.58`, `none`."""
    return "none" if bits is None else f"{bits:g}"
