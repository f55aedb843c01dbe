"""Names of files, inputs and outputs. Keys and values of layer i end in `.i`."""

from __future__ import annotations

from collections.abc import Callable

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"  # files
FEATURES, TOKENS, POSITIONS, LOGITS = "features", "tokens", "positions", "logits"


def cross(layer: int) -> tuple[str, str]:
    """Keys (b, h, d, p) and values (b, h, p, d) of cross attention."""
    return f"cross_keys.{layer}", f"cross_values.{layer}"


def past(layer: int) -> tuple[str, str]:
    """Keys and values of the tokens before, (b, h, t, d)."""
    return f"past_keys.{layer}", f"past_values.{layer}"


def present(layer: int) -> tuple[str, str]:
    """Keys and values of all tokens, (b, h, t + n, d)."""
    return f"present_keys.{layer}", f"present_values.{layer}"


def of_layers(names: Callable[[int], tuple[str, str]], layers: int) -> list[str]:
    """The names of keys and values of all layers, layer by layer."""
    return [name for layer in range(layers) for name in names(layer)]
