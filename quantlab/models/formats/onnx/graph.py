"""Building of an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first with Gelu
IN_ONE_FILE = 1_500_000_000  # bytes of weights; a protobuf message has at most 2^31
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Shape = Sequence[int | str]  # a name is a dimension that varies


class Graph:
    """A graph that grows by one node per call of `add`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, type: int, shape: Shape) -> str:
        """Declare an input; returns its name."""
        self._inputs.append(helper.make_tensor_value_info(name, type, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Shape) -> None:
        """Declare a value of floats as an output."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, FLOAT, list(shape)))

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        """Store a tensor in fp32, once for each name; returns the name."""
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(tensor.detach().float().contiguous().numpy(), name)
        return name

    def constant(self, values: Sequence[int] | int | float) -> str:
        """Store small numbers; returns their name."""
        array = np.array(values, np.float32 if isinstance(values, float) else np.int64)
        name = f"constant.{str(values).replace(' ', '')}"
        self._weights.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        name = name or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=list(self._weights.values())
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="quantlab")


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model; the weights of a large one lie beside it, in a file that ends in `.data`."""
    beside = is_large(model)
    onnx.save(model, path, save_as_external_data=beside, location=f"{path.name}.data" if beside else None)


def is_large(model: onnx.ModelProto) -> bool:
    """Whether the weights of a model do not fit into its file."""
    return sum(len(item.raw_data) for item in model.graph.initializer) > IN_ONE_FILE
