"""Files of other engines: folder of a converted model, errors of unreadable files."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quantlab.util.errors import CheckpointError, shortened


@contextlib.contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    """The folder for a converter's output: `keep`, or a temporary one."""
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def readable(path: Path, whose: str) -> Iterator[None]:
    """Within the block, errors in reading a file become one-line messages that name it.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read as a file of {whose}: {shortened(str(error))}") from error
