"""Folders of exported models, published atomically.

<export.dir>/<label>-<cell id>/        an exported model
<export.dir>/.<host>.<pid>.<hex>.tmp/  one in progress
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
from quantlab.export.manifest import check
from quantlab.records.storage import fsync
from quantlab.util.errors import ConfigError, ExportError

LABEL_CHARS = 100  # longest label in a folder name; most file systems limit names to 255 bytes
STAGING = re.compile(r"\.(?P<host>.+)\.(?P<pid>\d+)\.[0-9a-f]+(\.old)?\.tmp")


def folder_of(config: RunConfig, cell_id: str) -> Path:
    """Folder of a cell's model; the label is sanitised and shortened for all file systems."""
    assert config.export.dir is not None
    label = re.sub(r"[^A-Za-z0-9_+-]+", "_", config.label)[:LABEL_CHARS]
    return Path(config.export.dir).expanduser() / f"{label}-{cell_id}"


def folders(directory: str, cell_id: str) -> list[Path]:
    """The exports of a cell, under any label."""
    return sorted(Path(directory).expanduser().glob(f"[!.]*-{glob.escape(cell_id)}"))


def is_whole(directory: str, cell_id: str) -> bool:
    """Whether a cell is exported, and every file is as it was written."""
    found = folders(directory, cell_id)
    try:
        return bool(found) and all(check(folder, cell_id) for folder in found)
    except (ExportError, OSError):
        return False


@contextlib.contextmanager
def staged(directory: str | None) -> Iterator[Path | None]:
    """Create a temporary folder in `directory`, removed after the block unless `publish` moved it; None for None.

    Raises:
        ExportError: `directory` cannot be created or written.
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


def make(parent: Path, option: str = "export.dir=") -> None:
    """Create the export folder in advance, so that hours of measuring do not end without a place for the model.

    Args:
        parent: the folder.
        option: the user's option for it, for messages.

    Raises:
        ConfigError: it cannot be created or written.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if parent.is_file() else error.strerror
        raise ConfigError(f"{option}{parent} cannot be made: {why}; name a folder that can be written to") from None
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"{option}{parent} cannot be written to: name another folder")


def _clean(parent: Path) -> None:
    """Remove temporary folders of killed processes of this machine."""
    for path in parent.glob(".*.tmp"):
        found = STAGING.fullmatch(path.name)
        if found and found["host"] == socket.gethostname() and not psutil.pid_exists(int(found["pid"])):
            shutil.rmtree(path, ignore_errors=True)


def publish(folder: Path, final: Path) -> None:
    """Flush a finished folder to disk and rename it; replaces an older export of the cell."""
    for path in [*folder.rglob("*"), folder]:
        fsync(path)
    old = folder.with_suffix(".old.tmp")
    with contextlib.suppress(FileNotFoundError):
        final.rename(old)
    folder.rename(final)
    fsync(final.parent)
    shutil.rmtree(old, ignore_errors=True)
