"""Reading and hashing of regular files; hashes of unchanged files are cached."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any

LARGEST_BYTES = 32 * 2**30
NOTE_BYTES = 2**20  # limit for a small JSON file; those written by quantlab have a few hundred bytes
SETTLED_NS = 10 * 10**9  # a file that changed more recently may change again within one tick of its file system's clock


def why_no_folder(path: Path) -> str | None:
    """Why a folder can neither be used nor be created; None if it can. Nothing is written."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        return f"{there} is not a folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"


def cache_dir() -> Path:
    """$QUANTLAB_CACHE, else `quantlab` in $XDG_CACHE_HOME, else ~/.cache/quantlab."""
    own = os.environ.get("QUANTLAB_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "quantlab"


@contextlib.contextmanager
def opened(path: Path, most_bytes: int = LARGEST_BYTES, follow: bool = True) -> Iterator[BufferedReader]:
    """Open a regular file for reading, and nothing else: a pipe would block, and a device never ends.

    Args:
        path: path of the file.
        most_bytes: largest size allowed.
        follow: follow symbolic links, which may lead out of the folder.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is larger than `most_bytes`.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    except ValueError:
        raise OSError(errno.EINVAL, "no file system can hold such a path", str(path)) from None
    state = os.fstat(handle)
    if stat.S_ISREG(state.st_mode) and state.st_size <= most_bytes:
        with os.fdopen(handle, "rb") as file:
            yield file
        return
    os.close(handle)
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    raise OSError(errno.EFBIG, f"{state.st_size:,} bytes, but at most {most_bytes:,} are read", str(path))


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of at most `most_bytes` that is not a link; see `opened`."""
    try:
        with opened(path, most_bytes, follow=False) as file:
            size = os.fstat(file.fileno()).st_size
            return file.read(size or most_bytes)  # files in /proc report size 0
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # ENXIO: a socket
            raise OSError(errno.EINVAL, "a link or a socket, expected a regular file", str(path)) from None
        raise


def read_note(path: Path) -> dict[str, Any]:
    """Read a small JSON object from a file; empty if there is none or it cannot be read."""
    try:
        found = json.loads(read_bytes(path, NOTE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class Digests:
    """SHA-256 of files, cached by their file system metadata; a context manager, which saves the cache at its end.

        <cache_dir()>/digests/<hash of the folder>.json    name → inode, size, mtime, ctime, digest

    The key includes ctime, which unlike mtime cannot be set by a program: a file that replaces another of the same size
    and mtime is still hashed again. A cache that cannot be written only costs time.
    """

    def __init__(self) -> None:
        self._places = cache_dir() / "digests"
        self._folders: dict[Path, dict[str, Any]] = {}
        self._news: set[Path] = set()

    def __enter__(self) -> Digests:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for folder in self._news:
            with contextlib.suppress(OSError):
                _replace(self._place(folder), json.dumps(self._folders[folder]))

    def of(self, path: Path) -> str:
        """The hash of a file's content, hex.

        Raises:
            OSError: see `opened`.
            ValueError: no file system can hold such a path.
        """
        path = path.absolute()
        with opened(path) as file:
            state, known = _state(file), self._known(path.parent)
            entry = known.get(path.name)
            if isinstance(entry, list) and entry[:-1] == state:
                return str(entry[-1])
            now = time.time_ns()
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if _state(file) == state and now - max(state[2:]) > SETTLED_NS:
                known[path.name] = [*state, digest]
                self._news.add(path.parent)
        return digest

    def _known(self, folder: Path) -> dict[str, Any]:
        if folder not in self._folders:
            found: Any = None
            with contextlib.suppress(OSError, ValueError):
                found = json.loads(self._place(folder).read_text())
            self._folders.setdefault(folder, found if isinstance(found, dict) else {})
        return self._folders[folder]

    def _place(self, folder: Path) -> Path:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
        return self._places / f"{name}.json"


def _state(file: BufferedReader) -> list[int]:
    found = os.fstat(file.fileno())
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _replace(path: Path, text: str) -> None:
    replace_whole(path, lambda fresh: fresh.write_text(text))


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file of a cache beside its place, then move it there, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    write(fresh)
    fresh.replace(path)
