"""ONNX Runtime on the CPU: sessions of the encoder and of the decoding step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantlab.engines.stepwise import Ids
from quantlab.models.formats.onnx.names import (
    DECODER,
    ENCODER,
    FEATURES,
    LOGITS,
    POSITIONS,
    TOKENS,
    cross,
    of_layers,
    past,
    present,
)

Array = npt.NDArray[np.float32]


class OnnxRuntime:
    """See `Graphs`; keys and values are arrays.

    Args:
        folder: with the files of encoder and decoder.
        threads: that one session may use.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._encoder, self._decoder = (_session(folder / name, threads) for name in (ENCODER, DECODER))
        layers = len(self._encoder.get_outputs()) // 2
        self._past, self._cross, after = (of_layers(name, layers) for name in (past, cross, present))
        self._outputs = [LOGITS, *after]
        _, self._heads, _, self._width = next(
            item.shape for item in self._decoder.get_inputs() if item.name == self._past[0]
        )

    def encode(self, features: Array) -> Sequence[Array]:
        """See `Graphs`."""
        found: list[Array] = self._encoder.run(self._cross, {FEATURES: features})
        return found

    def empty(self, utterances: int) -> Sequence[Array]:
        """See `Graphs`."""
        return [np.zeros((utterances, self._heads, 0, self._width), np.float32)] * len(self._past)

    def step(
        self, tokens: Ids, positions: Ids, past: Sequence[Array], cross: Sequence[Array]
    ) -> tuple[Array, Sequence[Array]]:
        """See `Graphs`."""
        held = dict(zip((*self._past, *self._cross), (*past, *cross), strict=True))
        inputs: dict[str, Any] = {TOKENS: tokens, POSITIONS: positions, **held}
        logits, *after = self._decoder.run(self._outputs, inputs)
        return logits, after


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
