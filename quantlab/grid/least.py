"""The least size that a cell can have, known before it is measured."""

from __future__ import annotations

from collections.abc import Mapping

from quantlab import models
from quantlab.config.schema import AS_SHIPPED, RunConfig
from quantlab.quantization import registry
from quantlab.quantization.hqq_layer import ROWS_PER_PACK, THREE_BIT_PARTS
from quantlab.quantization.recipe import bits_of
from quantlab.quantization.select import HEAD, RECIPE, choose

BITS = 8  # of a byte
IN_HQQ_LAYERS = ("hqq", "rtn", "gptq", "awq", RECIPE)  # libraries
FLOAT_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}


def least_bytes(config: RunConfig) -> int:
    """A lower bound of the size of a cell's weights, in bytes; 0 if its checkpoint is not on this machine yet.

    Raises:
        ConfigError: the folder is not a checkpoint, or its modules cannot be chosen.
    """
    total, linears = models.parameters(config.model), models.linear_weights(config.model)
    return 0 if total is None or linears is None else bound(config, total, linears)


def bound(config: RunConfig, total: int, linears: Mapping[str, int]) -> int:
    """The bits of all codes, and what is not quantized, in bytes; scales and zero points only of HQQ's layers.

    An engine of its own may quantize everything: all parameters count with the bits of a code. 0 for a file as it was
    shipped, a quantizer of a third party, and a format without `quant.bits`.

    Args:
        config: the cell.
        total: parameters of the model.
        linears: weights of each Linear module.
    """
    quant = config.quant
    if quant.library == AS_SHIPPED or registry.added(quant.library) is not None:
        return 0
    floats = FLOAT_BITS[config.runtime.dtype]
    if quant.scheme == "none":
        return total * floats // BITS
    if registry.has_own_engine(registry.get(quant.library)):
        return int(total * (quant.bits or 0) / BITS)
    bits = {name: _bits(config, name) for name in choose(tuple(linears), quant)[0]}
    # proj_out shares its matrix with the embedding, which stays as it is unless both are quantized.
    left = total - sum(linears[name] for name in bits if name != HEAD or quant.embedding)
    return int((left * floats + sum(linears[name] * each for name, each in bits.items())) / BITS)


def _bits(config: RunConfig, module: str) -> float:
    """Bits of a weight in a module, with its part of a scale and a zero point in HQQ's layers."""
    quant = config.quant
    bits = (bits_of(quant, module) if quant.library == RECIPE else quant.bits) or 0
    if quant.library not in IN_HQQ_LAYERS or quant.group_size is None or bits not in ROWS_PER_PACK:
        return bits
    packed = 32 / THREE_BIT_PARTS if bits == 3 else BITS / ROWS_PER_PACK[bits]
    # HQQ's kernels for GPUs have 16 bit for each.
    scale = FLOAT_BITS[config.runtime.dtype] if config.device.name == "cpu" else 16
    return packed + 2 * scale / quant.group_size
