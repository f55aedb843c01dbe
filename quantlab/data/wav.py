"""WAV headers whose size of the samples is wrong, as programs leave them that write into a pipe or are killed.

A size that is too large is libsndfile's business: it reads what is there, and says so in its log. One that is too
small it takes for the whole; `mended` sees to those.

Source: Multimedia Programming Interface and Data Specifications 1.0, IBM and Microsoft 1991, chapter 2 (RIFF).
"""

from __future__ import annotations

import struct
from typing import BinaryIO

CHUNK = struct.Struct("<4sI")  # id, bytes that follow
HEADER = 12  # bytes: RIFF, size, WAVE
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
    place = HEADER
    while place + CHUNK.size <= total:
        file.seek(place)
        name, size = CHUNK.unpack(file.read(CHUNK.size))
        if name == b"data":
            return place + CHUNK.size, size
        place += CHUNK.size + size + size % 2
    return None


def _are_chunks(file: BinaryIO, place: int, total: int) -> bool:
    """Whether what lies behind the samples is what belongs there, to the end of the file."""
    while place + CHUNK.size <= total:
        file.seek(place)
        name, size = CHUNK.unpack(file.read(CHUNK.size))
        if not all(32 <= letter < 127 for letter in name) or name in (b"RIFF", b"data"):
            return False
        place += CHUNK.size + size + size % 2
    return place <= total + 1
