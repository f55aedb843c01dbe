"""What a file of whisper.cpp holds, read off its headers; shares nothing with the writer.

Source: whisper.cpp 1.8, `whisper_model_load`; ggml, ggml-common.h (block sizes).
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAGIC = b"lmgg"
# ggml_type → name, weights of a block, bytes of a block
TYPES = {
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
}
NUMBERS = (
    "n_vocab n_audio_ctx n_audio_state n_audio_head n_audio_layer n_text_ctx n_text_state n_text_head n_text_layer "
    "n_mels ftype"
).split()


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # the last index runs fastest
    offset: int  # of its data in the file, bytes
    bytes: int


@dataclass(frozen=True)
class Contents:
    """A file without its data."""

    numbers: dict[str, int]  # by their names in whisper.cpp
    tensors: tuple[Tensor, ...]


def read(path: Path) -> Contents:
    """Read a file's headers.

    Raises:
        ValueError: it is no such file, or is cut off.
    """
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ValueError(f"{path} does not begin as a file of whisper.cpp")
        numbers = dict(zip(NUMBERS, _integers(file, len(NUMBERS)), strict=True))
        bins, frequencies = _integers(file, 2)
        file.seek(4 * bins * frequencies, os.SEEK_CUR)
        [words] = _integers(file, 1)
        for _ in range(words):
            file.seek(_integers(file, 1)[0], os.SEEK_CUR)
        size = path.stat().st_size
        tensors = []
        while file.tell() < size:
            tensors.append(_tensor(file))
            file.seek(tensors[-1].bytes, os.SEEK_CUR)
        if file.tell() != size:
            raise ValueError(f"{path} ends within {tensors[-1].name}")
    return Contents(numbers, tuple(tensors))


def _tensor(file: BinaryIO) -> Tensor:
    dimensions, length, kind = _integers(file, 3)
    shape = tuple(reversed(_integers(file, dimensions)))
    name = file.read(length).decode()
    dtype, weights, block_bytes = TYPES[kind]
    return Tensor(name, dtype, shape, file.tell(), math.prod(shape) // weights * block_bytes)


def _integers(file: BinaryIO, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}i", file.read(4 * count))
