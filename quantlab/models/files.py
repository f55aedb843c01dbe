"""Bounded reading of checkpoint files: regular files, JSON objects, safetensors of floats."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.util.errors import CheckpointError, shortened
from quantlab.util.files import LARGEST_BYTES, opened

MOST_BYTES = 64 << 20  # limit for text files; Whisper's tokenizer.json has 4 MB
MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit
FLOATS = ("F64", "F32", "F16", "BF16")
# formats that torch, NumPy, joblib and others execute when reading, or that only other programs read
NEVER_READ = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npz", ".npy", ".h5", ".msgpack", ".onnx")


def is_there(path: Path) -> bool:
    """Whether the path exists, even as a broken link."""
    return os.path.lexists(path)


def check_regular(path: Path, most_bytes: int = LARGEST_BYTES) -> None:
    """Refuse anything but a regular file of limited size: a pipe could block, and a device never ends.

    Raises:
        CheckpointError: the message names the file and the reason.
    """
    with _named(path), opened(path, most_bytes):
        pass


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: the file holds no JSON object, or one that no checkpoint would have.
    """
    found = read_any_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return found


def read_any_json(path: Path) -> Any:
    """The JSON value in a file; raises like `read_json`."""
    with _named(path), opened(path, MOST_BYTES) as file:
        content = file.read()
    try:
        return json.loads(content)
    except RecursionError:
        raise CheckpointError(f"{path} is not JSON of a checkpoint: it is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {shortened(str(error), 200)}") from None


def check_names(path: Path, content: Any) -> None:
    """Refuse JSON that names, anywhere in it, a file of a type that is never opened.

    Raises:
        CheckpointError: the message shows the name.
    """
    if found := next((text for text in _texts(content) if text.lower().endswith(NEVER_READ)), None):
        raise CheckpointError(f"{path} names {shortened(found)}: only .safetensors are read of a checkpoint")


def _texts(content: Any) -> Iterator[str]:
    left = [content]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            left += item.values()
        elif isinstance(item, list):
            left += item


def check_floats(path: Path) -> None:
    """Refuse safetensors of integers or 8-bit floats, which would be taken for unquantized weights.

    An unreadable header is left to the library, which reports the error.

    Raises:
        CheckpointError: the message names the first such tensor.
    """
    for name, entry in _header(path).items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if name != "__metadata__" and isinstance(dtype, str) and dtype not in FLOATS:
            raise CheckpointError(
                f"{path}: {shortened(name)} is stored as {dtype}; it is already quantized, or not a checkpoint: "
                f"expected {', '.join(FLOATS)}"
            )


def _header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, after its size (u64, little-endian); empty if invalid."""
    with _named(path), opened(path) as file:
        start = file.read(8)
        if len(start) < 8 or (size := struct.unpack("<Q", start)[0]) > MOST_HEADER_BYTES:
            return {}
        try:
            found = json.loads(file.read(size))
        except (ValueError, RecursionError):
            return {}
    return found if isinstance(found, dict) else {}
