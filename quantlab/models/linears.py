"""Names of the Linear modules of a Whisper model, from its shape alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ATTENTION = ("k_proj", "v_proj", "q_proj", "out_proj")
_FEED_FORWARD = ("fc1", "fc2")


def linears(shape: Mapping[str, Any]) -> tuple[str, ...]:
    """Names as in transformers.

    Args:
        shape: a config.json, of which the numbers of layers are read.
    """
    return (*_of("encoder", shape, ("self_attn",)), *_of("decoder", shape, ("self_attn", "encoder_attn")), "proj_out")


def _of(part: str, shape: Mapping[str, Any], attentions: tuple[str, ...]) -> Iterator[str]:
    for layer in range(shape[f"{part}_layers"]):
        below = f"model.{part}.layers.{layer}"
        yield from (f"{below}.{attention}.{name}" for attention in attentions for name in _ATTENTION)
        yield from (f"{below}.{name}" for name in _FEED_FORWARD)
