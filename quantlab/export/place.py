"""Folders of exported models, published whole or not at all.

<export.dir>/<label>-<cell id>/        an exported model
<export.dir>/.<host>.<pid>.<hex>.tmp/  one that a process is working on
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from quantlab.config.schema import RunConfig
from quantlab.records.storage import fsync
from quantlab.util.errors import ConfigError, ExportError

LABEL_CHARS = 100  # of a folder's name, which most file systems bound at 255 bytes
STAGING = re.compile(r"\.(?P<host>.+)\.(?P<pid>\d+)\.[0-9a-f]+(\.old)?\.tmp")


def folder_of(config: RunConfig, cell_id: str) -> Path:
    """The folder of a cell's model; a name is cut to what every file system takes, so that none leads elsewhere."""
    assert config.export.dir is not None
    label = re.sub(r"[^A-Za-z0-9_+-]+", "_", config.label)[:LABEL_CHARS]
    return Path(config.export.dir).expanduser() / f"{label}-{cell_id}"


def is_there(directory: str, cell_id: str) -> bool:
    """Whether a cell is exported, under whatever label."""
    return any(Path(directory).expanduser().glob(f"[!.]*-{glob.escape(cell_id)}"))


@contextlib.contextmanager
def staged(directory: str | None) -> Iterator[Path | None]:
    """A new folder in `directory` to work in, gone after the block unless `publish` moved it; None for None.

    Raises:
        ExportError: `directory` cannot be made or written to.
    """
    if directory is None:
        yield None
        return
    parent = Path(directory).expanduser()
    try:
        make(parent)
    except ConfigError as error:
        raise ExportError(str(error)) from None
    _clean(parent)
    folder = parent / f".{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make(parent: Path) -> None:
    """Now, as there would be no place for the model after hours of measuring.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"export.dir={parent} cannot be made: {error.strerror}; name a folder that can be written to"
        ) from None
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"export.dir={parent} cannot be written to: name another folder")


def _clean(parent: Path) -> None:
    """Remove what killed processes of this machine left."""
    for path in parent.glob(".*.tmp"):
        found = STAGING.fullmatch(path.name)
        if found and found["host"] == socket.gethostname() and not psutil.pid_exists(int(found["pid"])):
            shutil.rmtree(path, ignore_errors=True)


def publish(folder: Path, final: Path) -> None:
    """Give a finished folder its name, once it is on the disk; an older export of the cell makes room."""
    for path in [*folder.rglob("*"), folder]:
        fsync(path)
    old = folder.with_suffix(".old.tmp")
    with contextlib.suppress(FileNotFoundError):
        final.rename(old)
    folder.rename(final)
    fsync(final.parent)
    shutil.rmtree(old, ignore_errors=True)
