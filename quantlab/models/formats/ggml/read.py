"""Reader of ggml files; shares no code with the writer.

Source: whisper.cpp 1.8, `whisper_model_load`; ggml, ggml-common.h (block sizes).
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from quantlab.util.errors import shortened
from quantlab.util.files import opened

MAGIC = b"lmgg"
AT_ONCE = 1 << 16  # bytes allocated at once, as stated sizes may be false
MOST_DIMENSIONS = 4  # ggml's limit
# ggml_type → name, weights per block, bytes per block
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
    """The headers of a file, without tensor data."""

    numbers: dict[str, int]  # hyperparameters by their names in whisper.cpp
    words: tuple[bytes, ...]
    tensors: tuple[Tensor, ...]


def read(path: Path) -> Contents:
    """Read a file's headers.

    Raises:
        ValueError: not a ggml file, or a truncated or inconsistent one.
        OSError: see `opened`.
    """
    with opened(path) as file:
        if file.read(4) != MAGIC:
            raise ValueError("it does not start like a whisper.cpp file")
        numbers = dict(zip(NUMBERS, _integers(file, len(NUMBERS)), strict=True))
        bins, frequencies = _sizes(file, 2)
        _skip(file, 4 * bins * frequencies)
        words = tuple(_bytes(file, _sizes(file, 1)[0]) for _ in range(_sizes(file, 1)[0]))
        size, tensors = os.fstat(file.fileno()).st_size, []
        while file.tell() < size:
            tensors.append(_tensor(file))
            if file.seek(tensors[-1].bytes, os.SEEK_CUR) > size:
                raise ValueError(f"it ends within {shortened(tensors[-1].name)}")
    return Contents(numbers, words, tuple(tensors))


def _tensor(file: BinaryIO) -> Tensor:
    dimensions, length, kind = _sizes(file, 3)
    if not 1 <= dimensions <= MOST_DIMENSIONS or kind not in TYPES:
        raise ValueError(f"it has a tensor of {dimensions} dimensions and type {kind}")
    shape = tuple(reversed(_sizes(file, dimensions)))
    name = _bytes(file, length).decode()
    dtype, weights, block_bytes = TYPES[kind]
    if shape[-1] % weights:
        raise ValueError(f"the rows of {shortened(name)} are not whole blocks of {dtype}")
    return Tensor(name, dtype, shape, file.tell(), math.prod(shape) // weights * block_bytes)


def _sizes(file: BinaryIO, count: int) -> tuple[int, ...]:
    found = _integers(file, count)
    if min(found) < 0:
        raise ValueError(f"it has a size of {min(found)}")
    return found


def _integers(file: BinaryIO, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}i", _bytes(file, 4 * count))


def _bytes(file: BinaryIO, count: int) -> bytes:
    if count > AT_ONCE:
        start = file.tell()
        _skip(file, count)
        file.seek(start)
    if len(found := file.read(count)) < count:
        raise ValueError("it is truncated")
    return found


def _skip(file: BinaryIO, count: int) -> None:
    """Skip bytes without reading or allocating; refuse to go past the end."""
    if file.seek(count, os.SEEK_CUR) > os.fstat(file.fileno()).st_size:
        raise ValueError("it is truncated")
