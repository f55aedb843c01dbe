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
MOST_BYTES = 16 << 30  # of all that is unpacked
BLOCK_BYTES = 512  # of tar; what the shortest member takes


class ArchiveError(ConfigError):
    """A file that holds no records; the message says how one is made."""


@contextlib.contextmanager
def unpacked(root: Path) -> Iterator[Path]:
    """The folder of records that `root` is, or that is packed in it, which is gone after the block.

    Only `cells/<cell id>/` with the three files of a record is taken out of an archive, and nothing else.

    Raises:
        ArchiveError: a file that is no tar archive, or that holds no record, or more than could be one's.
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
    """How many files were taken out."""
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
            assert source is not None  # of a regular file
            with source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            count += 1
    return count


def _place(member: tarfile.TarInfo) -> str | None:
    """Where below the root a member belongs; None for what is no part of a record."""
    parts = PurePosixPath(member.name).parts[-3:]
    if len(parts) < 3 or parts[0] != "cells" or not storage.CELL_ID.fullmatch(parts[1]) or not member.isreg():
        return None
    return "/".join(parts) if member.size <= storage.FILES.get(parts[2], -1) else None
