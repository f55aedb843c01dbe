"""Records of several folders, read or merged as one; conflicting records of one cell are an error."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from quantlab.records import storage
from quantlab.records.archive import unpacked
from quantlab.records.schema import Record
from quantlab.util.console import warn
from quantlab.util.errors import ConfigError

Roots = str | Path | Sequence[str | Path]
Opener = Callable[[Path], contextlib.AbstractContextManager[Path]]


class Stored(NamedTuple):
    """A record and the root that has its raw files."""

    root: Path
    record: Record


class ClashError(ConfigError):
    """Two folders have different records of one cell, and quantlab cannot know which one is meant."""


@dataclass(frozen=True)
class Clash:
    """A cell id with different records in two folders."""

    cell_id: str
    roots: tuple[Path, Path]

    def __str__(self) -> str:
        one, other = self.roots
        return f"cell {self.cell_id}: its records in {one} and {other} differ"


@dataclass(frozen=True)
class Merged:
    """Outcome of a merge."""

    copied: int
    there: int  # identical records that already existed
    clashes: tuple[Clash, ...]  # not copied


def load_records(root: Roots, on_unreadable: Callable[[str], None] = warn) -> list[Record]:
    """Load the records of a grid in order of cell id: settings, receipt, figures of each split; no raw data.

    Error rates and shares are fractions, `_s` means seconds, `_bytes` bytes.

    Args:
        root: output folder of the grid, a tar archive of records, or several of these.
        on_unreadable: called with a message for each unreadable record, which is left out; logs by default.

    Raises:
        ConfigError: there is no record, an archive has none, or two roots have different records of one cell.
    """
    roots = paths(root)
    with below(roots) as folder:
        ids = storage.recorded(folder)
        if not ids:
            raise ConfigError(f"no records in {' and '.join(map(str, roots))}{storage.nearby(roots[0])}")
        return storage.readable(folder, ids, on_unreadable)


@contextlib.contextmanager
def below(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield a temporary folder that links all records below several roots; a single root is yielded itself.

    Args:
        roots: folders or archives of records; if several, each must have some. A record
            that is identical in two of them counts once.

    Raises:
        ClashError: records of one cell differ; one line per cell.
        ConfigError: an archive, or one of several folders, has no records.
    """
    with contextlib.ExitStack() as stack:
        opened = {root: stack.enter_context(unpacked(root)) for root in roots}
        if len(opened) == 1:
            yield next(iter(opened.values()))
            return
        found = _distinct(opened)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quantlab-records-")))
        storage.cells_dir(folder).mkdir()
        for cell_id, root in found.items():
            record = storage.cells_dir(opened[root]) / cell_id
            (storage.cells_dir(folder) / cell_id).symlink_to(record.resolve(), target_is_directory=True)
        yield folder


def paths(roots: Roots) -> list[Path]:
    """One or several roots as a list."""
    return [Path(roots)] if isinstance(roots, str | Path) else [Path(root) for root in roots]


def stored(roots: Roots, ids: Sequence[str] | None, on_unreadable: Callable[[str], None]) -> list[Stored]:
    """Load the records of some cells, in this order, or of all (None), in order of their ids.

    Args:
        roots: folders or archives of records; if several, each must have some.
        ids: cell ids; those without a record are left out.
        on_unreadable: called with a message for each unreadable record, which is left out.

    Raises:
        ClashError: records of one id differ.
        ConfigError: one of several folders has no records.
    """
    folders = paths(roots)
    alone = len(folders) == 1
    place = dict.fromkeys(storage.recorded(folders[0]), folders[0]) if alone else _distinct({at: at for at in folders})
    wanted = [cell_id for cell_id in (place if ids is None else ids) if cell_id in place]
    found = {
        record.cell_id: Stored(root, record)
        for root in folders
        for record in storage.readable(root, [cell_id for cell_id in wanted if place[cell_id] == root], on_unreadable)
    }
    return [found[cell_id] for cell_id in wanted if cell_id in found]


def merge(roots: Sequence[Path], into: Path, opener: Opener = unpacked) -> Merged:
    """Copy the records below several folders into one; each record is copied atomically.

    Args:
        roots: as for `below`; not changed.
        into: target folder; its existing records are not changed.
        opener: opens each of `roots`, as a folder of records.

    Raises:
        ConfigError: see `below`.
        OSError: a record cannot be read or written; those before it are copied.
    """
    with contextlib.ExitStack() as stack:
        opened = {root: stack.enter_context(opener(root)) for root in roots}
        found, clashes = _gathered(opened)
        copied = there = 0
        for cell_id, root in found.items():
            if storage.copy(storage.cells_dir(opened[root]) / cell_id, into):
                copied += 1
            elif storage.is_same(opened[root], into, cell_id):
                there += 1
            else:
                clashes.append(Clash(cell_id, (root, into)))
    return Merged(copied, there, tuple(clashes))


def _distinct(opened: Mapping[Path, Path]) -> dict[str, Path]:
    """Map each cell to its root.

    Raises:
        ClashError: two roots have different records of one cell.
        ConfigError: a root without records.
    """
    found, clashes = _gathered(opened)
    if clashes:
        raise ClashError("\n".join([*map(str, clashes), "use these folders one at a time"]))
    return found


def _gathered(opened: Mapping[Path, Path]) -> tuple[dict[str, Path], list[Clash]]:
    """Map each cell, in order of ids, to its root; cells with conflicting records are returned separately.

    Args:
        opened: root → the folder of its records.

    Raises:
        ConfigError: a root without records.
    """
    found: dict[str, Path] = {}
    clashes: list[Clash] = []
    for root, folder in opened.items():
        ids = storage.recorded(folder)
        if not ids:
            raise ConfigError(
                f"no records in {root}{storage.nearby(root) if root.exists() else ', which does not exist'}"
            )
        for cell_id in ids:
            first = found.setdefault(cell_id, root)
            if first != root and not storage.is_same(opened[first], folder, cell_id):
                clashes.append(Clash(cell_id, (first, root)))
    for clash in clashes:
        found.pop(clash.cell_id, None)
    return dict(sorted(found.items())), clashes
