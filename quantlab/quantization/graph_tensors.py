"""Graphs of a quantized model (ONNX Runtime, OpenVINO), and their tensors for the receipt, by Linear module."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from quantlab.models.formats.onnx.read import Tensor
from quantlab.models.formats.onnx.whisper import EMBEDDING, save
from quantlab.quantization.select import HEAD
from quantlab.quantization.tensors import Held, Stored

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

Quantize = Callable[[Path, set[str], Path], None]  # graph in fp32, names of the products to quantize, file to write
_NO_CODES = ("scale", "scales", "zero_point", "zero_points")  # ends of names of what belongs to a quantized weight


def save_quantized(
    model: WhisperForConditionalGeneration,
    names: Sequence[str],
    files: Mapping[str, Path],
    quantize: Quantize,
    read: Callable[[Path], Iterable[Tensor]],
) -> tuple[dict[str, Held], tuple[Stored, ...]]:
    """Write encoder and decoder, quantized by a library.

    Args:
        model: the model in fp32.
        names: the Linear modules to quantize.
        files: file to write for each of the two graphs.
        quantize: writes it.
        read: the tensors of a file that it wrote.

    Returns:
        As `sort_tensors`, of both files.
    """
    with tempfile.TemporaryDirectory() as plain:
        for file, products in save(model, Path(plain), own_head=HEAD in names).items():
            quantize(Path(plain) / file, products.intersection(names), files[file])
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return sort_tensors((item for file in files.values() for item in read(file)), linears)


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
