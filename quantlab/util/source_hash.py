"""Hashes of source code outside quantlab (plug-ins, editable installs), which may change without a new version."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError
from pathlib import Path
from urllib.parse import unquote, urlparse

_LENGTH = 16  # hex digits
_KINDS = ("*.py", "*.so", "*.pyd")


def of_entry_point(point: EntryPoint) -> dict[str, str]:
    """The hash of the top-level package or module of an entry point; nothing is imported."""
    name = point.module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module created at run time
        spec = None
    places = [Path(place) for place in (spec.submodule_search_locations or [spec.origin or ""])] if spec else []
    return _named(name, places)


def of_editable(distributions: Iterable[str]) -> dict[str, str]:
    """The hashes of those distributions that are editable installs."""
    found = ((name, _folder(name, tuple(sys.path))) for name in distributions)
    return {key: mark for name, folder in found if folder is not None for key, mark in _named(name, [folder]).items()}


def _named(name: str, places: Iterable[Path]) -> dict[str, str]:
    files = sorted({file for place in places for file in _files(place)})
    if not files:
        return {}
    marks = [(file.name, _digest(file, *_state(file))) for file in files]
    return {f"{name} (source)": hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:_LENGTH]}


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    elif place.is_dir():
        for kind in _KINDS:
            yield from (file for file in place.rglob(kind) if not _is_hidden(file.relative_to(place)))


def _is_hidden(file: Path) -> bool:
    """Whether a file belongs to an environment or a tool's cache instead of the source."""
    return any(part.startswith(".") or part in ("venv", "build", "node_modules") for part in file.parts[:-1])


def _state(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@functools.lru_cache(maxsize=10_000)
def _digest(file: Path, *state: int) -> str:
    """The hash of a file, cached until it changes, since every cell of a grid needs it."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@functools.cache
def _folder(distribution: str, path: tuple[str, ...]) -> Path | None:
    """The source folder of an editable install found on `path` (PEP 610); None for a regular install."""
    try:
        installed = json.loads(Distribution.from_name(distribution).read_text("direct_url.json") or "{}")
        editable, url = installed.get("dir_info", {}).get("editable"), urlparse(installed.get("url", ""))
    except (PackageNotFoundError, ValueError, AttributeError):
        return None
    return Path(unquote(url.path)) if editable and url.scheme == "file" else None
