"""Reading of checkpoint files with bounds: regular files, JSON objects, safetensors of floats."""

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

MOST_BYTES = 64 << 20  # of a file of text; the tokenizer.json of Whisper has 4 MB
MOST_HEADER_BYTES = 100_000_000  # of safetensors, the library's own limit
FLOATS = ("F64", "F32", "F16", "BF16")
# what torch, NumPy, joblib and others read by running what is in it, or what only other programs read
NEVER_READ = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npz", ".npy", ".h5", ".msgpack", ".onnx")


def is_there(path: Path) -> bool:
    """Whether there is something of this name, be it a link to nowhere."""
    return os.path.lexists(path)


def check_regular(path: Path, most_bytes: int = LARGEST_BYTES) -> None:
    """Refuse what could block or never end when a library reads it: pipes, devices, folders, and what is too long.

    Raises:
        CheckpointError: which file, and why.
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
        CheckpointError: there is none, or one that no checkpoint has.
    """
    found = read_any_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is no JSON object")
    return found


def read_any_json(path: Path) -> Any:
    """The JSON in a file; raises as `read_json`."""
    with _named(path), opened(path, MOST_BYTES) as file:
        content = file.read()
    try:
        return json.loads(content)
    except RecursionError:
        raise CheckpointError(f"{path} is no JSON of a checkpoint: it is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {shortened(str(error), 200)}") from None


def check_names(path: Path, content: Any) -> None:
    """Refuse JSON that names a file of a kind that is never opened, wherever in it.

    Raises:
        CheckpointError: the name.
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
    """Refuse safetensors of integers or of 8-bit floats: they would be taken for the weights that they stand for.

    A header that cannot be read is left to the library, which says what is wrong with it.

    Raises:
        CheckpointError: the first such tensor.
    """
    for name, entry in _header(path).items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if name != "__metadata__" and isinstance(dtype, str) and dtype not in FLOATS:
            raise CheckpointError(
                f"{path}: {shortened(name)} is stored as {dtype}; the checkpoint is quantized already, or none: "
                f"expected {', '.join(FLOATS)}"
            )


def _header(path: Path) -> dict[str, Any]:
    """u64 bytes of the header, little-endian, and the header, JSON: nothing, where it is none."""
    with _named(path), opened(path) as file:
        start = file.read(8)
        if len(start) < 8 or (size := struct.unpack("<Q", start)[0]) > MOST_HEADER_BYTES:
            return {}
        try:
            found = json.loads(file.read(size))
        except (ValueError, RecursionError):
            return {}
    return found if isinstance(found, dict) else {}
