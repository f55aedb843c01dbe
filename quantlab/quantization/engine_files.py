"""Files of other engines: a folder for a converted model, and errors of unreadable ones."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quantlab.util.errors import CheckpointError, shortened


@contextlib.contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    """Where a converter writes: the folder to keep, or one that is gone after the block."""
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def readable(path: Path, whose: str) -> Iterator[None]:
    """Whatever is wrong with a file while its headers are read, the message names it, in one line.

    Raises:
        CheckpointError: what.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read as a file of {whose}: {shortened(str(error))}") from error
