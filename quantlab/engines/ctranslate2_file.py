"""CTranslate2's `model.bin`, read without the library: what there is, of which type, and how large."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

VERSION = 6  # of the layout
DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")  # in the order of the library's DataType


@dataclass(frozen=True)
class Variable:
    """A tensor of the model; a tied one is listed under each of its names."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    stored_as: str  # the name under which the file holds it


def variables(path: Path) -> list[Variable]:
    """Every tensor of a file, those that are tied last.

    The file, little-endian: u32 version, name and u32 revision of the kind of model, u32 number of variables; of each
    its name, u8 rank, u32 per dimension, u8 data type, u32 bytes, the data; u32 number of aliases, of each its
    name and that of its variable. A string is u16 length, the final zero included, and its bytes.
    Source: CTranslate2 4.8, python/ctranslate2/specs/model_spec.py and src/models/model.cc.

    Raises:
        ValueError: another version of the layout.
    """
    with path.open("rb") as file:
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
    dtype = DTYPES[_number(file, "B")]
    size_bytes = _number(file, "I")
    file.seek(size_bytes, os.SEEK_CUR)
    return Variable(name, dtype, shape, size_bytes, stored_as=name)


def _aliases(alias: str, name: str, held: dict[str, Variable]) -> Iterator[Variable]:
    """The variable under its other name, and with it its scale, which the library ties without being told."""
    for suffix in ("", "_scale"):
        if found := held.get(name + suffix):
            yield replace(found, name=alias + suffix)


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()


def _number(file: BinaryIO, kind: str) -> int:
    """An unsigned integer: `kind` as in struct."""
    return int(struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0])
