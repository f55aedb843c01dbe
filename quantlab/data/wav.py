"""Repair of WAV headers with a wrong data size, as programs leave them that write into a pipe.

A size that is too large is libsndfile's business: it reads what is there, and says so in its log. One that is too
small it takes for the whole; `mended` sees to those.

Source: Multimedia Programming Interface and Data Specifications 1.0, IBM and Microsoft 1991, chapter 2 (RIFF).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

CHUNK = struct.Struct("<4sI")  # id, bytes that follow
HEADER = 12  # bytes: RIFF, size, WAVE
MOST_CHUNKS = 1000  # that are looked at; a file has a handful
MOST_BYTES = 2**30  # of a file that is mended in memory
BEHIND = 4096  # bytes behind the samples that may be anything: tags of other formats, padding


class WrongSizeError(ValueError):
    """Samples go on behind their end; the message says how many bytes."""


def mended(file: BinaryIO) -> bytes | None:
    """The whole file with a header that is right, if it says that there are no samples and there are; else None.

    Args:
        file: at its start; its position is changed.

    Raises:
        WrongSizeError: the header tells of fewer samples than there are, but not of none.
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
        raise WrongSizeError(f"its header tells of {size:,} bytes of samples, and {rest:,} more follow")
    if total > MOST_BYTES:
        raise WrongSizeError(
            f"its header tells of no samples, and {rest:,} bytes follow; at most {MOST_BYTES:,} are read"
        )
    file.seek(0)
    content = bytearray(file.read())
    content[4:8] = struct.pack("<I", min(total - 8, 2**32 - 1))
    content[start - 4 : start] = struct.pack("<I", min(rest, 2**32 - 1))
    return bytes(content)


def _data(file: BinaryIO, total: int) -> tuple[int, int] | None:
    """Where the samples of a WAV start, and how many bytes they are said to be."""
    file.seek(0)
    head = file.read(HEADER)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    return next(((place, size) for place, name, size in _chunks(file, HEADER, total) if name == b"data"), None)


def _are_chunks(file: BinaryIO, place: int, total: int) -> bool:
    """Whether what lies behind the samples is what belongs there, to the end of the file."""
    for start, name, size in _chunks(file, place, total):
        if not all(32 <= letter < 127 for letter in name) or name in (b"RIFF", b"data"):
            return False
        place = start + size + size % 2
    return total - CHUNK.size < place <= total + 1


def _chunks(file: BinaryIO, place: int, total: int) -> Iterator[tuple[int, bytes, int]]:
    """Of each chunk from `place` on: where its content starts, its id, its size as it is said to be."""
    for _ in range(MOST_CHUNKS):
        if place + CHUNK.size > total:
            return
        file.seek(place)
        name, size = CHUNK.unpack(file.read(CHUNK.size))
        yield place + CHUNK.size, name, size
        place += CHUNK.size + size + size % 2
