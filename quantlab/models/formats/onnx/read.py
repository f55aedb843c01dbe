"""The tensors in an ONNX file, and the operators that read them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph; its name starts with that of the module in transformers."""

    name: str
    dtype: str
    bytes: int
    file: str
    reader: str  # operator


def tensors(path: Path) -> Iterator[Tensor]:
    """The tensors of a file, once for each node that reads them."""
    graph = onnx.load(path, load_external_data=False).graph
    stored = {item.name: item for item in graph.initializer}
    for node in graph.node:
        for name in node.input:
            if name in stored:
                item = stored[name]
                dtype = helper.tensor_dtype_to_np_dtype(item.data_type)
                size = math.prod(item.dims) * dtype.itemsize
                yield Tensor(name, str(dtype), size, path.name, node.op_type)
