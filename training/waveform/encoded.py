"""What an encoder makes of a batch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """`front`, `hidden`: (batch, width, 192), before and after the layers; `frames`: int64 (batch,), with speech."""

    front: Tensor
    hidden: Tensor
    frames: Tensor
