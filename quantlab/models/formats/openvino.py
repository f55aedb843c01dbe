"""OpenVINO's package, and the tensors in a file of it that was made from an ONNX file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.models.formats.onnx.read import Tensor

_DTYPES = {"f32": "float32", "f16": "float16", "i8": "int8", "u8": "uint8", "i4": "int4", "u4": "uint4", "i64": "int64"}
_ON_THE_WAY = ("Convert", "Multiply", "Subtract", "Reshape", "Transpose")  # from codes to the product


def library() -> Any:
    """The package openvino. Its tools and NNCF would report their use over the network with this package."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def tensors(path: Path) -> Iterator[Tensor]:
    """The tensors of a file, once for each node that uses them."""
    for node in library().Core().read_model(path).get_ordered_ops():
        if node.get_type_name() == "Constant":
            name, dtype = node.get_friendly_name(), node.get_element_type().to_string()
            for reader in _readers(node):
                yield Tensor(name, _DTYPES.get(dtype, dtype), node.get_byte_size(), path.name, reader)


def _readers(node: Any) -> Iterator[str]:
    """Operators that use the output of a node, after its numbers were converted and scaled."""
    for target in node.output(0).get_target_inputs():
        reader = target.get_node()
        if reader.get_type_name() in _ON_THE_WAY:
            yield from _readers(reader)
        else:
            yield reader.get_type_name()
