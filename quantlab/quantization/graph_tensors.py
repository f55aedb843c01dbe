"""Tensors of graphs (ONNX Runtime, OpenVINO) for the receipt, by Linear module."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantlab.models.formats.onnx.read import Tensor
from quantlab.models.formats.onnx.whisper import EMBEDDING
from quantlab.quantization.select import HEAD
from quantlab.quantization.tensors import Held, Stored

_NO_CODES = ("scale", "scales", "zero_point", "zero_points")  # ends of names of what belongs to a quantized weight


def sort_tensors(tensors: Iterable[Tensor], linears: Sequence[str]) -> tuple[dict[str, Held], tuple[Stored, ...]]:
    """The tensors of a model, by the names of Linear modules in transformers, and all others.

    The class of a module is the operator that reads its weight. An output projection without a matrix of its own reads
    the embedding, whose bytes count once.

    Args:
        tensors: of encoder and decoder.
        linears: names of all Linear modules of the model.
    """
    below: dict[str, dict[str, Stored]] = {}
    readers: dict[str, str] = {}
    for item in tensors:
        module, _, kind = item.name.rpartition(".")
        below.setdefault(module, {})[item.name] = Stored(kind, item.dtype, item.bytes, (item.file, item.name))
        if kind.startswith("weight") and not kind.endswith(_NO_CODES):
            readers[module] = item.reader
    if HEAD not in below:
        below[HEAD], readers[HEAD] = dict(below[EMBEDDING]), "MatMul"
    found = {name: Held(readers[name], tuple(below.pop(name).values())) for name in linears if name in below}
    return found, tuple(item for held in below.values() for item in held.values())
