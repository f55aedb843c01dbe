"""OpenVINO on the CPU: compiled models of the encoder and of the decoding step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantlab.engines.stepwise import Ids
from quantlab.models.formats.onnx.names import FEATURES, LOGITS, POSITIONS, TOKENS, cross, of_layers, past, present
from quantlab.models.formats.openvino import library

Array = npt.NDArray[np.float32]
PROBE = (0, 0, 0, 0)  # tokens


class OpenVino:
    """See `Graphs`; keys and values are arrays.

    Args:
        encoder: file of the encoder.
        decoder: file of the decoding step.
        threads: that it may use.
        group: activations that share a scale in products with compressed weights; 0: they stay floats.
    """

    def __init__(self, encoder: Path, decoder: Path, threads: int, group: int) -> None:
        core = library().Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # the default is bfloat16 where the processor has it
            "KV_CACHE_PRECISION": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the process is pinned
        }
        self._encoder, self._decoder = (core.compile_model(str(path), "CPU", settings) for path in (encoder, decoder))
        self._requests = self._encoder.create_infer_request(), self._decoder.create_infer_request()
        layers = (len(self._decoder.outputs) - 1) // 2
        self._past, self._cross, after = (of_layers(name, layers) for name in (past, cross, present))
        shape = self._decoder.input(self._past[0]).partial_shape
        self._heads, self._width = shape[1].get_length(), shape[3].get_length()
        self._encoded = _places(self._encoder, self._cross)
        self._present, [self._logits] = (_places(self._decoder, names) for names in (after, [LOGITS]))

    def encode(self, features: Array) -> Sequence[Array]:
        """See `Graphs`."""
        found = list(self._requests[0].infer({FEATURES: features}, share_inputs=True).values())
        return [found[place] for place in self._encoded]

    def empty(self, utterances: int) -> Sequence[Array]:
        """See `Graphs`."""
        return [np.zeros((utterances, self._heads, 0, self._width), np.float32)] * len(self._past)

    def step(
        self, tokens: Ids, positions: Ids, past: Sequence[Array], cross: Sequence[Array]
    ) -> tuple[Array, Sequence[Array]]:
        """See `Graphs`."""
        held = dict(zip((*self._past, *self._cross), (*past, *cross), strict=True))
        inputs: dict[str, Any] = {TOKENS: tokens, POSITIONS: positions, **held}
        found = list(self._requests[1].infer(inputs, share_inputs=True).values())
        return found[self._logits], [found[place] for place in self._present]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The primitives that compute products with weights, as the plugin reports them once they have run."""
        features = np.zeros((1, self._encoder.input(0).partial_shape[1].get_length(), 2 * len(PROBE)), np.float32)
        self.step(np.array([PROBE]), np.arange(len(PROBE)), self.empty(1), self.encode(features))
        return tuple(sorted({name for model in (self._encoder, self._decoder) for name in _primitives(model)}))


def _primitives(model: Any) -> Iterator[str]:
    for node in model.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        if facts["layerType"].astype(str) == "FullyConnected":
            yield facts["primitiveType"].astype(str)


def _places(model: Any, names: Sequence[str]) -> list[int]:
    """Places of outputs, which may have further names."""
    return [next(place for place, item in enumerate(model.outputs) if name in item.names) for name in names]
