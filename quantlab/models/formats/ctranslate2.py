"""Reader of CTranslate2's `model.bin` without the library: variables, dtypes, sizes."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from quantlab.util.errors import shortened
from quantlab.util.files import opened

VERSION = 6  # supported version of the layout
ITEM_BYTES = {"float32": 4, "int8": 1, "int16": 2, "int32": 4, "float16": 2, "bfloat16": 2}
DTYPES = tuple(ITEM_BYTES)  # in the order of the library's DataType
# layer name within a block of the file → names of the Linear modules stacked in it
LINEARS = {
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
BLOCK = re.compile(r"(encoder|decoder)/layer_(\d+)/(.+)")


@dataclass(frozen=True)
class Variable:
    """A tensor of the model; a tied tensor is listed under each of its names."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    stored_as: str  # its name in the file
    offset: int  # of its data in the file, bytes


def kind(path: Path) -> str | None:
    """The kind of model in a file, e.g. `WhisperSpec`; None if it is not a CTranslate2 file.

    Raises:
        OSError: see `opened`.
    """
    with opened(path) as file:
        try:
            _number(file, "I")
            found = _text(file)
        except ValueError:
            return None
    return found if found.endswith("Spec") else None


def variables(path: Path) -> list[Variable]:
    """Every tensor of a file, tied ones last.

    Layout, little-endian: u32 version, name and u32 revision of the kind of model, u32 number of variables; of each
    its name, u8 rank, u32 per dimension, u8 data type, u32 bytes, the data; u32 number of aliases, of each its
    name and that of its variable. A string is u16 length, the final zero included, and its bytes.
    Source: CTranslate2 4.8, python/ctranslate2/specs/model_spec.py and src/models/model.cc.

    Raises:
        ValueError: unsupported layout version, or a truncated or inconsistent file.
        OSError: see `opened`.
    """
    with opened(path) as file:
        if (version := _number(file, "I")) != VERSION:
            raise ValueError(f"{path.name} has layout {version} of CTranslate2, only {VERSION} is known")
        _text(file)
        _number(file, "I")
        held = {item.name: item for item in [_variable(file) for _ in range(_number(file, "I"))]}
        names = [(_text(file), _text(file)) for _ in range(_number(file, "I"))]
    return [*held.values(), *(again for alias, name in names for again in _aliases(alias, name, held))]


def _variable(file: BinaryIO) -> Variable:
    name = _text(file)
    shape = tuple(_number(file, "I") for _ in range(_number(file, "B")))
    code = _number(file, "B")
    size_bytes = _number(file, "I")
    if code >= len(DTYPES) or math.prod(shape) * ITEM_BYTES[DTYPES[code]] != size_bytes:
        raise ValueError(f"{shortened(name)} has {size_bytes} bytes, which does not fit {list(shape)} of type {code}")
    start = file.tell()
    if file.seek(size_bytes, os.SEEK_CUR) > os.fstat(file.fileno()).st_size:
        raise ValueError(f"it ends within {shortened(name)}")
    return Variable(name, DTYPES[code], shape, size_bytes, stored_as=name, offset=start)


def _aliases(alias: str, name: str, held: dict[str, Variable]) -> Iterator[Variable]:
    """A variable under its alias, and its scale, which the library ties implicitly."""
    for suffix in ("", "_scale"):
        if found := held.get(name + suffix):
            yield replace(found, name=alias + suffix)


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()


def _number(file: BinaryIO, kind: str) -> int:
    """An unsigned integer: `kind` as in struct."""
    found = file.read(struct.calcsize(kind))
    if len(found) < struct.calcsize(kind):
        raise ValueError("it is truncated")
    return int(struct.unpack(f"<{kind}", found)[0])
