"""Heads of records: status and settings only, since reading the rest takes most of the time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from quantlab.records import storage
from quantlab.records.labels import Cell, names
from quantlab.records.schema import Status, check_config_types
from quantlab.util.files import read_bytes

_END = '\n "environment":'  # the key after the head; JSON strings contain no line breaks


@dataclass(frozen=True)
class Head:
    """Head of a record."""

    status: str
    reason: str | None
    created_at: str
    label: str = ""


def heads(root: str | Path) -> dict[str, Head]:
    """Heads of all records below a root, by cell id; an unreadable record has the status `unreadable`."""
    found, cells = {}, []
    for cell_id in storage.recorded(root):
        head, cell = _head(root, cell_id)
        found[cell_id] = head
        cells += [] if cell is None else [cell]
    named = names(cells)
    return {cell_id: replace(head, label=named.get(cell_id, cell_id)) for cell_id, head in found.items()}


def _head(root: str | Path, cell_id: str) -> tuple[Head, Cell | None]:
    path = storage.cells_dir(root) / cell_id / "record.json"
    try:
        front, end, _ = read_bytes(path, storage.RECORD_BYTES).decode("utf-8").partition(_END)
        found = json.loads(front.rstrip(", \n") + "}" if end else front)
        head = Head(found["status"], found["reason"], found["created_at"])
        rest = partial(_environment, root, cell_id)
        cell = Cell(
            found["cell_id"], found["config"], found["fingerprints"], measured_on=rest, created_at=head.created_at
        )
        check_config_types(cell.config)
        if not all(isinstance(mark, str) for mark in cell.fingerprints.values()):
            raise TypeError("a fingerprint must be text")
        if cell.id != cell_id or head.status not in get_args(Status):
            raise ValueError("it belongs to another cell, or its status is unknown")
        if not isinstance(head.reason, str | None) or not isinstance(head.created_at, str):
            raise TypeError("reason and created_at must be text")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return Head("unreadable", f"{path} is not a quantlab record ({error})", ""), None
    return head, cell


def _environment(root: str | Path, cell_id: str) -> Mapping[str, Any]:
    """Environment of a record, read only if settings do not distinguish its cell from another."""
    try:
        record = storage.read(root, cell_id)
    except (ValueError, OSError):
        return {}
    return {} if record is None else record.environment
