"""Encoder and decoding step of Whisper as ONNX graphs.

Weights and the products with them are named like the Linear modules of transformers; a weight is stored transposed, as
ONNX's MatMul reads it. The encoder also computes the keys and values of cross attention, which are the same in all
steps. Shapes: b utterances, h heads, p positions of the encoder, t tokens before, n tokens now.
Source: transformers, modeling_whisper.py; https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from torch import nn

from quantlab.models.formats.onnx.graph import FLOAT, INT64, Graph, write
from quantlab.models.formats.onnx.names import (
    DECODER,
    ENCODER,
    FEATURES,
    LOGITS,
    POSITIONS,
    TOKENS,
    cross,
    past,
    present,
)

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

HEAD, EMBEDDING = "proj_out", "model.decoder.embed_tokens"


def save(model: WhisperForConditionalGeneration, folder: Path, own_head: bool) -> dict[str, set[str]]:
    """Write both graphs.

    Args:
        model: the model in fp32.
        folder: for the files.
        own_head: see `decoder`.

    Returns:
        File → names of the Linear modules whose products it has.
    """
    found = {}
    for file, graph in ((ENCODER, encoder(model)), (DECODER, decoder(model, own_head))):
        write(graph, folder / file)
        found[file] = {node.name for node in graph.graph.node if node.op_type == "MatMul"}
    return found


def encoder(model: WhisperForConditionalGeneration) -> onnx.ModelProto:
    """Features (b, mel bins, 2 p) → keys and values of cross attention."""
    graph, config = Graph("encoder"), model.config
    parts = _Parts(graph, model, int(config.encoder_attention_heads))
    x = graph.input(FEATURES, FLOAT, ("b", int(config.num_mel_bins), "frames"))
    x = graph.add("Gelu", parts.convolution("model.encoder.conv1", x))
    x = graph.add("Gelu", parts.convolution("model.encoder.conv2", x))
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    length = graph.add("Shape", x, start=1, end=2)
    where = parts.weight("model.encoder.embed_positions.weight")
    x = graph.add("Add", x, graph.add("Slice", where, graph.constant([0]), length, graph.constant([0])))
    for layer in range(int(config.encoder_layers)):
        name = f"model.encoder.layers.{layer}"
        y = parts.norm(f"{name}.self_attn_layer_norm", x)
        keys, values = parts.keys_and_values(f"{name}.self_attn", y)
        x = graph.add("Add", x, parts.attention(f"{name}.self_attn", y, parts.turned(keys), values))
        x = parts.feed_forward(name, x)
    x = parts.norm("model.encoder.layer_norm", x)
    parts = _Parts(graph, model, int(config.decoder_attention_heads))
    for layer in range(int(config.decoder_layers)):
        keys, values = parts.keys_and_values(f"model.decoder.layers.{layer}.encoder_attn", x)
        each = parts.width // parts.heads
        of_keys, of_values = cross(layer)
        graph.output(parts.turned(keys), of_keys, ("b", parts.heads, each, "p"))
        graph.output(values, of_values, ("b", parts.heads, "p", each))
    return graph.model()


def decoder(model: WhisperForConditionalGeneration, own_head: bool) -> onnx.ModelProto:
    """Tokens (b, n), their positions (n,), past and cross attention → logits (b, vocabulary) of the last, present.

    Args:
        model: the model in fp32.
        own_head: whether the output projection has a matrix of its own instead of the embedding's.
    """
    graph, config = Graph("decoder"), model.config
    parts = _Parts(graph, model, int(config.decoder_attention_heads))
    each = parts.width // parts.heads
    tokens = graph.input(TOKENS, INT64, ("b", "n"))
    positions = graph.input(POSITIONS, INT64, ("n",))
    x = graph.add("Gather", parts.weight(f"{EMBEDDING}.weight"), tokens)
    x = graph.add("Add", x, graph.add("Gather", parts.weight("model.decoder.embed_positions.weight"), positions))
    hidden = _hidden(graph, positions)
    for layer in range(int(config.decoder_layers)):
        name = f"model.decoder.layers.{layer}"
        y = parts.norm(f"{name}.self_attn_layer_norm", x)
        both = [
            graph.add("Concat", graph.input(before, FLOAT, ("b", parts.heads, "t", each)), now, axis=2)
            for before, now in zip(past(layer), parts.keys_and_values(f"{name}.self_attn", y), strict=True)
        ]
        for value, after in zip(both, present(layer), strict=True):
            graph.output(value, after, ("b", parts.heads, "t + n", each))
        x = graph.add("Add", x, parts.attention(f"{name}.self_attn", y, parts.turned(both[0]), both[1], hidden))
        y = parts.norm(f"{name}.encoder_attn_layer_norm", x)
        keys, values = cross(layer)
        graph.input(keys, FLOAT, ("b", parts.heads, each, "p"))
        graph.input(values, FLOAT, ("b", parts.heads, "p", each))
        x = graph.add("Add", x, parts.attention(f"{name}.encoder_attn", y, keys, values))
        x = parts.feed_forward(name, x)
    last = graph.add("Gather", parts.norm("model.decoder.layer_norm", x), graph.constant(-1), axis=1)
    if own_head:
        logits = parts.linear(HEAD, last)
    else:
        embedding = graph.add("Transpose", parts.weight(f"{EMBEDDING}.weight"), perm=[1, 0])
        logits = graph.add("MatMul", last, embedding, name=HEAD)
    graph.output(logits, LOGITS, ("b", int(config.vocab_size)))
    return graph.model()


def _hidden(graph: Graph, positions: str) -> str:
    """What is added to the scores of self attention, (n, t + n): -inf for tokens that come later."""
    last = graph.add("Gather", positions, graph.constant(-1))
    every = graph.add("Range", graph.constant(0), graph.add("Add", last, graph.constant(1)), graph.constant(1))
    later = graph.add("Greater", every, graph.add("Unsqueeze", positions, graph.constant([1])))
    return graph.add("Where", later, graph.constant(float("-inf")), graph.constant(0.0))


class _Parts:
    """The parts that encoder and decoder are made of."""

    def __init__(self, graph: Graph, model: WhisperForConditionalGeneration, heads: int) -> None:
        self.graph = graph
        self.heads = heads
        self.width = int(model.config.d_model)
        self._tensors = dict(model.named_parameters())
        self._modules: dict[str, Any] = dict(model.named_modules())

    def weight(self, name: str) -> str:
        return self.graph.weight(name, self._tensors[name])

    def linear(self, name: str, x: str) -> str:
        module: nn.Linear = self._modules[name]
        x = self.graph.add("MatMul", x, self.graph.weight(f"{name}.weight", module.weight.T), name=name)
        return x if module.bias is None else self.graph.add("Add", x, self.weight(f"{name}.bias"))

    def norm(self, name: str, x: str) -> str:
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.graph.add("LayerNormalization", x, scale, shift, epsilon=self._modules[name].eps, name=name)

    def convolution(self, name: str, x: str) -> str:
        module: nn.Conv1d = self._modules[name]
        steps = {"kernel_shape": module.kernel_size, "strides": module.stride, "pads": (*module.padding,) * 2}
        return self.graph.add("Conv", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), name=name, **steps)

    def keys_and_values(self, name: str, x: str) -> tuple[str, str]:
        """Of a block of attention, (b, h, positions, d)."""
        return self._by_head(self.linear(f"{name}.k_proj", x)), self._by_head(self.linear(f"{name}.v_proj", x))

    def turned(self, keys: str) -> str:
        """Keys as the right side of a product, (b, h, d, positions)."""
        return self.graph.add("Transpose", keys, perm=[0, 1, 3, 2])

    def attention(self, name: str, x: str, keys: str, values: str, hidden: str | None = None) -> str:
        """Attention of all heads, with its output projection; keys are `turned`, `hidden` is added to the scores."""
        scale = self.graph.constant(float(self.width // self.heads) ** -0.5)
        queries = self._by_head(self.graph.add("Mul", self.linear(f"{name}.q_proj", x), scale))
        scores = self.graph.add("MatMul", queries, keys)
        scores = scores if hidden is None else self.graph.add("Add", scores, hidden)
        found = self.graph.add("MatMul", self.graph.add("Softmax", scores, axis=-1), values)
        joined = self.graph.add("Transpose", found, perm=[0, 2, 1, 3])
        return self.linear(f"{name}.out_proj", self.graph.add("Reshape", joined, self.graph.constant([0, 0, -1])))

    def feed_forward(self, name: str, x: str) -> str:
        y = self.linear(f"{name}.fc1", self.norm(f"{name}.final_layer_norm", x))
        return self.graph.add("Add", x, self.linear(f"{name}.fc2", self.graph.add("Gelu", y)))

    def _by_head(self, x: str) -> str:
        shape = self.graph.constant([0, 0, self.heads, -1])
        return self.graph.add("Transpose", self.graph.add("Reshape", x, shape), perm=[0, 2, 1, 3])
