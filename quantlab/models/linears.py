"""The Linear modules of a Whisper model, from its shape alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_ATTENTION = ("k_proj", "v_proj", "q_proj", "out_proj")
_FEED_FORWARD = ("fc1", "fc2")


def linears(shape: Mapping[str, Any]) -> dict[str, int]:
    """Number of weights of each module, by its name in transformers; the biases are not among them.

    Args:
        shape: a config.json, of which the numbers of layers and the sizes are read.
    """
    encoder, decoder = _of("encoder", shape, ("self_attn",)), _of("decoder", shape, ("self_attn", "encoder_attn"))
    return {**dict(encoder), **dict(decoder), "proj_out": shape["vocab_size"] * shape["d_model"]}


def _of(part: str, shape: Mapping[str, Any], attentions: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    width, feed_forward = shape["d_model"], shape[f"{part}_ffn_dim"]
    for layer in range(shape[f"{part}_layers"]):
        below = f"model.{part}.layers.{layer}"
        yield from ((f"{below}.{attention}.{name}", width * width) for attention in attentions for name in _ATTENTION)
        yield from ((f"{below}.{name}", width * feed_forward) for name in _FEED_FORWARD)
