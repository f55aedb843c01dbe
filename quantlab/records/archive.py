"""Records packed in a tar file: `tar -cJf records.tar.xz -C mlruns cells`."""

from __future__ import annotations

import contextlib
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from quantlab.records import storage
from quantlab.util.errors import ConfigError

HOW = "tar -cJf records.tar.xz -C mlruns cells"
MOST_BYTES = 16 << 30  # limit of the unpacked size
BLOCK_BYTES = 512  # block size of tar, and size of the smallest member


class ArchiveError(ConfigError):
    """A file without records; the message says how to make an archive."""


@contextlib.contextmanager
def unpacked(root: Path) -> Iterator[Path]:
    """Yield `root` if it is a folder; unpack an archive into a temporary folder, removed after the block.

    Only the files of a record in `cells/<cell id>/` are extracted from an archive.

    Raises:
        ArchiveError: the file is not a tar archive, contains no record, or is too large for records.
    """
    if not root.is_file():
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="quantlab-records-") as folder:
        try:
            found = _unpack(root, Path(folder))
        except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            why = str(error).split("\n")[0].rstrip(":")
            raise ArchiveError(f"{root} cannot be unpacked ({why}); expected records packed by: {HOW}") from None
        if not found:
            raise ArchiveError(f"{root} holds no records; expected an archive made by: {HOW}")
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> int:
    """Unpack an archive; returns the number of extracted files."""
    left, count = MOST_BYTES, 0
    with tarfile.open(path) as archive:
        for member in archive:
            left -= max(member.size, BLOCK_BYTES)
            if left < 0:
                raise tarfile.TarError(f"more than {MOST_BYTES:,} bytes")
            place = _place(member)
            if place is None:
                continue
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(member)
            assert source is not None  # as it is a regular file
            with source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            count += 1
    return count


def _place(member: tarfile.TarInfo) -> str | None:
    """Path of a member below the root; None if it is not part of a record."""
    parts = PurePosixPath(member.name).parts[-3:]
    if len(parts) < 3 or parts[0] != "cells" or not storage.CELL_ID.fullmatch(parts[1]) or not member.isreg():
        return None
    return "/".join(parts) if member.size <= storage.FILES.get(parts[2], -1) else None
