"""Atomic storage of records on disk.

<output_dir>/cells/<cell_id>/record.json        all but the raw data
<output_dir>/cells/<cell_id>/utterances.jsonl   raw references and hypotheses, one utterance per line
<output_dir>/cells/<cell_id>/batches.jsonl      raw timings, one timed call per line, in measured order
<output_dir>/cells/<cell_id>/streams.jsonl      runtime.streaming: every decoding of an utterance while it was spoken
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from quantlab.records.schema import Batch, CellResult, Record, Stream, Utterance
from quantlab.util.errors import shortened
from quantlab.util.files import read_bytes
from quantlab.util.memory import without_gc
from quantlab.util.redact import bare, redact

Line = TypeVar("Line", Utterance, Batch, Stream)
CELL_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
RECORD_BYTES = 64 << 20  # maximum of record.json; with a receipt of 500 modules it has 0.2 MB
RAW_BYTES = 512 << 20  # maximum of a .jsonl; a thousand utterances have 0.5 MB
RAW_FILES = ("utterances.jsonl", "batches.jsonl")
STREAMS = "streams.jsonl"  # a raw file that only some records have
EVERY_RAW_FILE = (*RAW_FILES, STREAMS)
FILES = {"record.json": RECORD_BYTES, **dict.fromkeys(EVERY_RAW_FILE, RAW_BYTES)}  # file of a record → its maximum size


def cells_dir(root: str | Path) -> Path:
    return Path(root) / "cells"


def write(root: str | Path, result: CellResult) -> Path:
    """Store a result atomically, without credentials: readers find the old record, the new one or none.

    Safe with other processes that write or clean up below the same root.

    Returns:
        The folder `<root>/cells/<cell_id>`.

    Raises:
        ValueError: the id is not valid as a folder name.
    """
    final = cells_dir(root) / _checked(result.record.cell_id)
    with _locked(root):
        fresh = _sibling(final, "tmp")
        fresh.mkdir()
        try:
            _write_lines(fresh / "utterances.jsonl", map(_json, result.utterances))
            _write_lines(fresh / "batches.jsonl", map(_json, result.batches))
            if result.streams:
                _write_lines(fresh / STREAMS, map(_json, result.streams))
            record = public(result.record).model_copy(update={"digests": digests(fresh)})
            _write_lines(fresh / "record.json", [_json(record, indent=1)])
            fsync(fresh)
            _swap(fresh, final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return final


def copy(folder: Path, root: str | Path) -> bool:
    """Copy a record byte for byte below another root, unless that has a record of the cell.

    Args:
        folder: folder of the record, `<another root>/cells/<cell_id>`.
        root: target root, created if missing.

    Returns:
        Whether it was copied; False if the root has a record of the cell.
    """
    final = cells_dir(root) / _checked(folder.name)
    with _locked(root):
        if (final / "record.json").exists():
            return False
        fresh = _sibling(final, "tmp")
        fresh.mkdir()
        try:
            for name, content in _contents(folder).items():
                _write_bytes(fresh / name, content)
            fsync(fresh)
            _swap(fresh, final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return True


def is_same(root: str | Path, other: str | Path, cell_id: str) -> bool:
    """Whether two roots have identical records of a cell; an unreadable record equals no other."""
    try:
        one, two = (_contents(cells_dir(item) / cell_id) for item in (root, other))
    except OSError:
        return False
    return one == two


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: read_bytes(folder / name, most) for name, most in FILES.items() if (folder / name).exists()}


def _checked(cell_id: str) -> str:
    if not CELL_ID.fullmatch(cell_id):
        raise ValueError(f"{shortened(cell_id)} is not a cell id: expected 1 to 64 letters, digits and any of . _ -")
    return cell_id


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 in hex of each raw file of a record, by file name."""
    names = EVERY_RAW_FILE if os.path.lexists(folder / STREAMS) else RAW_FILES
    return {name: hashlib.sha256(read_bytes(folder / name, RAW_BYTES)).hexdigest() for name in names}


@contextlib.contextmanager
def _locked(root: str | Path) -> Iterator[None]:
    """Lock the root against other processes, so that work in progress is not taken for leftovers; freed by a kill."""
    cells_dir(root).mkdir(parents=True, exist_ok=True)
    with FileLock(cells_dir(root) / ".lock"):
        yield


def public(record: Record) -> Record:
    """The record without secrets, which can be in its messages, and in addresses of old records."""
    ours = {name: bare(getattr(record, name)) for name in ("config", "environment")}
    texts = {name: text and redact(text) for name in ("reason", "traceback") if (text := getattr(record, name))}
    problems = tuple(item.model_copy(update={"detail": redact(item.detail)}) for item in record.problems)
    return record.model_copy(update=ours | texts | {"problems": problems})


def _json(part: BaseModel, indent: int | None = None) -> str:
    try:
        return part.model_dump_json(indent=indent)
    except PydanticSerializationError:  # a file name that is not UTF-8, stored as lone surrogates
        text = json.dumps(part.model_dump(), indent=indent, ensure_ascii=False)
        return text.encode("utf-8", errors="replace").decode("utf-8")


def _swap(fresh: Path, final: Path) -> None:
    """Move a new folder into place; an old one is moved aside first, as rename(2) replaces only empty folders."""
    if not final.exists():
        fresh.rename(final)
    else:
        old = _sibling(final, "old")
        final.rename(old)
        fresh.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    fsync(final.parent)


def remove(root: str | Path, cell_id: str) -> None:
    """Remove the record of a cell, if there is one; readers find it whole or not at all."""
    final = cells_dir(root) / _checked(cell_id)
    with _locked(root):
        gone = _sibling(final, "tmp")
        with contextlib.suppress(FileNotFoundError):
            final.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            fsync(final.parent)


def _sibling(final: Path, suffix: str) -> Path:
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.{suffix}")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    _write_bytes(path, "".join(line + "\n" for line in lines).encode())


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean_leftovers(root: str | Path) -> None:
    """Clean up after a killed `write`: remove half-written folders, restore a record that was moved aside."""
    if not cells_dir(root).exists():
        return
    with _locked(root):
        for path in cells_dir(root).glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)
        for path in cells_dir(root).glob(".*.old"):
            final = path.with_name(path.name[1:].rsplit(".", 2)[0])
            if final.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.rename(final)


def read(root: str | Path, cell_id: str) -> Record | None:
    """Read the record of a cell; None if there is none.

    Raises:
        ValueError: the file is not a record of this schema, or its folder is not named by a valid id.
        OSError: it cannot be read, or is not a regular file.
    """
    path = cells_dir(root) / cell_id / "record.json"
    if not CELL_ID.fullmatch(cell_id):
        raise _no_record(path, "the name of its folder is not a cell id")
    try:
        found = Record.model_validate_json(read_bytes(path, RECORD_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise _no_record(path, _first(error)) from None
    if found.cell_id != cell_id:
        raise _no_record(path, f"cell_id: it belongs to another cell, {shortened(found.cell_id)}")
    return found


def _no_record(path: Path, why: str) -> ValueError:
    return ValueError(f"{real_path(path)} is not a quantlab record: {why}; delete its folder to run the cell again")


def real_path(path: Path) -> Path:
    """The real path of a record's file, which may have been read through a link made by `quantlab.records.several`."""
    return path.parent.resolve() / path.name if path.parent.is_symlink() else path


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(shortened(part).strip("'") for part in first["loc"]) or "the file"
    return f"{where}: {first['msg']}"


def recorded(root: str | Path) -> list[str]:
    """Sorted ids of the cells that have a record, readable or not."""
    return sorted(path.parent.name for path in cells_dir(root).glob("[!.]*/record.json"))


def nearby(root: str | Path) -> str:
    """The end of a message on a folder without records: the root that it belongs to or contains; empty if none."""
    root = Path(root) if Path(root).name else Path(root).absolute()
    above = [path.parent for path in (root, root.parent) if path.name == cells_dir(root).name]
    found = next((path for path in [*above, *sorted(root.glob("*"))] if recorded(path)), None)
    return "" if found is None else f"; they are in {found}: give that folder"


def read_all(root: str | Path) -> Iterator[Record]:
    """All records below `root`, in order of cell id."""
    for cell_id in recorded(root):
        record = read(root, cell_id)
        if record is not None:
            yield record


def readable(root: str | Path, ids: Iterable[str], on_unreadable: Callable[[str], None]) -> list[Record]:
    """Records of some cells; unreadable ones are left out and reported to `on_unreadable`."""
    found = []
    with without_gc():
        for cell_id in ids:
            try:
                record = read(root, cell_id)
            except (ValueError, OSError) as error:
                on_unreadable(str(error))
            else:
                found += [record] if record is not None else []
    return found


def read_utterances(root: str | Path, cell_id: str) -> list[Utterance]:
    """Read the scored utterances of a cell.

    Raises:
        ValueError: a line is invalid; the message names it.
        OSError: the file cannot be read.
    """
    return list(_lines(Utterance, cells_dir(root) / cell_id / "utterances.jsonl"))


def read_batches(root: str | Path, cell_id: str) -> list[Batch]:
    """Read the timed calls of a cell; raises as `read_utterances`."""
    return list(_lines(Batch, cells_dir(root) / cell_id / "batches.jsonl"))


def read_streams(root: str | Path, cell_id: str) -> list[Stream]:
    """Read the streams of a cell, empty without streaming; raises as `read_utterances`."""
    path = cells_dir(root) / cell_id / STREAMS
    return list(_lines(Stream, path)) if os.path.lexists(path) else []


def _lines(kind: type[Line], path: Path) -> Iterator[Line]:
    try:
        text = read_bytes(path, RAW_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{real_path(path)} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines(): a hypothesis may hold U+2028
        try:
            if line:
                yield kind.model_validate_json(line)
        except ValidationError as error:
            raise ValueError(f"{real_path(path)}:{number}: {_first(error)}") from None
