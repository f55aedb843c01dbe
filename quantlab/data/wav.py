"""Repair of WAV headers with a wrong data size, as left by programs that write to a pipe.

libsndfile handles sizes that are too large: it reads the available data and says so in its log. It trusts sizes that
are too small; `repaired` corrects those.

Source: Multimedia Programming Interface and Data Specifications 1.0, IBM and Microsoft 1991, chapter 2 (RIFF).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

CHUNK = struct.Struct("<4sI")  # id, size
HEADER = 12  # bytes: RIFF, size, WAVE
MOST_CHUNKS = 1000  # limit; a file has a handful
MOST_BYTES = 2**30  # limit for files repaired in memory
BEHIND = 4096  # bytes of any content allowed after the samples: tags of other formats, padding


class WrongSizeError(ValueError):
    """Samples continue after the end stated in the header; the message says how many bytes."""


def repaired(file: BinaryIO) -> bytes | None:
    """The whole file with a corrected header if the stated size is 0 but there are samples; else None.

    Args:
        file: an open file at its start; the position changes.

    Raises:
        WrongSizeError: the stated size is too small but not 0.
    """
    total = file.seek(0, 2)
    found = _data(file, total)
    if found is None:
        return None
    start, size = found
    rest = total - start - size
    if rest <= 0 or _are_chunks(file, start + size + size % 2, total):
        return None
    if size and rest <= BEHIND:
        return None
    if size:
        raise WrongSizeError(f"its header states {size:,} bytes of samples, and {rest:,} more follow")
    if total > MOST_BYTES:
        raise WrongSizeError(
            f"its header states no samples, and {rest:,} bytes follow; at most {MOST_BYTES:,} are read"
        )
    file.seek(0)
    content = bytearray(file.read())
    content[4:8] = struct.pack("<I", min(total - 8, 2**32 - 1))
    content[start - 4 : start] = struct.pack("<I", min(rest, 2**32 - 1))
    return bytes(content)


def _data(file: BinaryIO, total: int) -> tuple[int, int] | None:
    """Start of the samples in a WAV, and their stated size in bytes."""
    file.seek(0)
    head = file.read(HEADER)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    return next(((place, size) for place, name, size in _chunks(file, HEADER, total) if name == b"data"), None)


def _are_chunks(file: BinaryIO, place: int, total: int) -> bool:
    """Whether valid chunks follow from `place` to the end of the file."""
    for start, name, size in _chunks(file, place, total):
        if not all(32 <= letter < 127 for letter in name) or name in (b"RIFF", b"data"):
            return False
        place = start + size + size % 2
    return total - CHUNK.size < place <= total + 1


def _chunks(file: BinaryIO, place: int, total: int) -> Iterator[tuple[int, bytes, int]]:
    """Start of the content, id and stated size of each chunk from `place` on."""
    for _ in range(MOST_CHUNKS):
        if place + CHUNK.size > total:
            return
        file.seek(place)
        name, size = CHUNK.unpack(file.read(CHUNK.size))
        yield place + CHUNK.size, name, size
        place += CHUNK.size + size + size % 2
