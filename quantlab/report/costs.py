"""What a format costs: bits per weight, bytes read per decoded token, bit operations per second of audio.

All from the record alone: bytes from the receipt, shapes from its bytes before quantization. A figure that a record
does not determine is None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from quantlab.config.schema import Architecture
from quantlab.quantization.select import HEAD
from quantlab.records.schema import ModuleReceipt, Record

Part = Literal["encoder", "cross", "decoder", "head"]  # cross: keys and values of the audio, computed once per window

SHARED = "SharedEmbedding"  # its bytes are those of the head
_BITS_PER_BYTE = 8
_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
_HALF = ("float16", "bfloat16", "f16", "torchao_int4", "gemlite")  # formats and backends that compute in 16 bits
_SQUARE = re.compile(r"\.layers\.\d+\.self_attn\.k_proj$")  # inputs = outputs, and no bias
_WITHOUT_BIAS = ("k_proj", HEAD)
_TIED = ("ct2", "ggml", "as_shipped")  # libraries whose head and embedding are one tensor
_STATED = re.compile(r"(?:u?int|float)(\d+)")  # int8, float8_e4m3fn


@dataclass(frozen=True)
class Layer:
    """A Linear of the model."""

    receipt: ModuleReceipt
    weights: int  # inputs × outputs: multiplications per position
    outputs: int

    @property
    def part(self) -> Part:
        """Where it is, which says how often it runs."""
        name = self.receipt.name
        if name == HEAD:
            return "head"
        if "encoder" in name.split("."):
            return "encoder"
        return "cross" if name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj")) else "decoder"


def bits_per_weight(record: Record) -> float | None:
    """8 × bytes of the quantized modules / their parameters, codes, scales, zero points and biases included.

    Where nothing is quantized, of all Linear modules: 32 in fp32.
    """
    receipt, dtype_bits = record.receipt, _dtype_bits(record)
    if receipt is None or dtype_bits is None:
        return None
    modules = [item for item in receipt.modules if item.class_after != SHARED]
    chosen = [item for item in modules if item.quantized] or modules
    params = sum(item.bytes_before for item in chosen) * _BITS_PER_BYTE / dtype_bits
    return _BITS_PER_BYTE * sum(item.bytes_after for item in chosen) / params if params else None


def bytes_per_token(record: Record) -> int | None:
    """Bytes of the weights that one decoding step of one utterance reads.

    The Linear modules of the decoder, but for keys and values of the cross-attention, which are computed once per
    window; the output projection; one row of the token embedding. Not the layer norms, nor the cache.
    """
    layers = _layers(record)
    head = next((layer for layer in layers or () if layer.part == "head"), None)
    if layers is None or head is None:
        return None
    read = sum(layer.receipt.bytes_after for layer in layers if layer.part in ("decoder", "head"))
    return read + round(_embedding_bytes(record, head.receipt) / head.outputs)


def bit_ops_per_s(record: Record) -> float | None:
    """Multiplications × bits of the weight × bits of the activation, over all Linear modules, per second of audio.

    The encoder, and keys and values of the cross-attention, run over the whole window of each utterance; the decoder
    over the tokens that were generated. Source: Edge-ASR, arXiv 2507.07877.
    """
    layers, positions = _layers(record), _window(record)
    if layers is None or positions is None or not record.splits:
        return None
    windows = sum(split.utterances for split in record.splits.values()) * positions
    tokens = sum(split.tokens for split in record.splits.values())
    costs = [_bit_ops(layer, record) for layer in layers]
    if None in costs:
        return None
    total = sum(
        (cost or 0) * (windows if layer.part in ("encoder", "cross") else tokens)
        for layer, cost in zip(layers, costs, strict=True)
    )
    return total / sum(split.audio_s for split in record.splits.values())


def _bit_ops(layer: Layer, record: Record) -> float | None:
    """Of one position."""
    module, floats = layer.receipt, _dtype_bits(record)
    if floats is None:
        return None
    if not module.quantized:
        return layer.weights * floats * floats
    bits = module.bits if module.bits is not None else record.setting("quant.bits")
    activations = _activation_bits(record, floats)
    if bits is None or activations is None:
        return None
    adapter = 0
    if record.setting("quant.recover") == "lora":  # two matrices in floats
        adapter = record.setting("quant.lora_rank") * (layer.weights // layer.outputs + layer.outputs)
    return layer.weights * bits * activations + adapter * floats * floats


def _activation_bits(record: Record, floats: int) -> int | None:
    """Of the inputs of a quantized module."""
    scheme, format = record.setting("quant.scheme"), record.setting("quant.format")
    if scheme == "weight-only":
        return 16 if format in _HALF or record.setting("quant.backend") in _HALF else floats
    if scheme not in ("dynamic", "static") or record.setting("device.name") == "mps":
        return None
    stated = _STATED.match(str(record.setting("quant.activations") or "int8"))
    return int(stated[1]) if stated else None


def _dtype_bits(record: Record) -> int | None:
    """Of everything that is not quantized; older records have no dtype, and are fp32."""
    return _BITS.get(record.setting("runtime.dtype") or "float32")


def _layers(record: Record) -> list[Layer] | None:
    """All Linear modules with their shapes; None if the bytes are not those of a Whisper model."""
    receipt, bits = record.receipt, _dtype_bits(record)
    if receipt is None or bits is None or record.setting("model.family") not in (None, "whisper"):
        return None
    modules = [item for item in receipt.modules if item.class_after != SHARED]
    params = [_whole(item.bytes_before * _BITS_PER_BYTE, bits) for item in modules]
    width = _width(modules, params)
    if width is None or None in params:
        return None
    found = [_layer(item, count or 0, width) for item, count in zip(modules, params, strict=True)]
    return None if None in found else [layer for layer in found if layer is not None]


def _width(modules: Sequence[ModuleReceipt], params: Iterable[int | None]) -> int | None:
    """Of the model, by the modules that are square."""
    widths = {math.isqrt(count or 0) for item, count in zip(modules, params, strict=True) if _SQUARE.search(item.name)}
    return widths.pop() if len(widths) == 1 else None


def _layer(module: ModuleReceipt, params: int, width: int) -> Layer | None:
    """All modules have `width` inputs or, as fc2, outputs."""
    last = module.name.rpartition(".")[2]
    has_bias = last not in _WITHOUT_BIAS
    outputs = _whole(params, width + has_bias) if last == "fc1" or not has_bias else width
    if outputs is None:
        return None
    weights = params - has_bias * outputs
    return Layer(module, weights, outputs) if weights % width == 0 else None


def _whole(number: int, divisor: int) -> int | None:
    found, rest = divmod(number, divisor) if divisor else (0, 1)
    return None if rest else found


def _embedding_bytes(record: Record, head: ModuleReceipt) -> int:
    """Of the token embedding: those of the head's matrix, unless the head was quantized alone."""
    modules = () if record.receipt is None else record.receipt.modules
    tied = record.setting("quant.library") in _TIED or any(item.class_after == SHARED for item in modules)
    return head.bytes_after if tied or not head.quantized else head.bytes_before


def _window(record: Record) -> int | None:
    """Positions of the encoder per utterance; None if it is not one whole window, or the model another."""
    receipt, shape = record.receipt, record.setting("model.architecture")
    parted = record.setting("dataset.long") is not None or record.setting("runtime.audio_ctx") == "dynamic"
    if receipt is None or shape is None or parted or record.setting("protocol.num_beams") not in (None, 1):
        return None
    try:
        known = Architecture.model_validate(shape)
    except ValueError:
        return None
    return known.max_source_positions if known.parameters == receipt.params else None
