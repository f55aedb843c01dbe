"""The head of a record: what became of the cell, without the receipt and the figures, which are most of the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from quantlab import storage
from quantlab.config import corpus_label
from quantlab.files import read_bytes
from quantlab.record import Status

_END = '\n "fingerprints":'  # the key after the last one wanted; no string of JSON holds a line end


@dataclass(frozen=True)
class Head:
    """One record, in short."""

    status: str
    reason: str | None
    created_at: str
    label: str


def heads(root: str | Path) -> dict[str, Head]:
    """Every record below a root, by cell id; one that cannot be read has the status `unreadable`."""
    return {cell_id: _head(root, cell_id) for cell_id in storage.recorded(root)}


def _head(root: str | Path, cell_id: str) -> Head:
    path = storage.cells_dir(root) / cell_id / "record.json"
    try:
        front, end, _ = read_bytes(path, storage.RECORD_BYTES).decode("utf-8").partition(_END)
        found = json.loads(front.rstrip(", \n") + "}" if end else front)
        head = Head(found["status"], found["reason"], found["created_at"], _label(found["config"]))
        if found["cell_id"] != cell_id or head.status not in get_args(Status):
            raise ValueError("another cell's, or of no status that there is")
        if not isinstance(head.reason, str | None) or not isinstance(head.created_at, str):
            raise TypeError("reason and created_at are texts")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return Head("unreadable", f"{path} is no record of quantlab ({error})", "", cell_id)
    return head


def _label(config: dict[str, dict[str, object]]) -> str:
    """As `RunConfig.label`."""
    axes = "-".join(str(config[axis]["name"]) for axis in ("model", "quant", "device"))
    noise = config["dataset"].get("noise")
    if not isinstance(noise, dict) or noise.get("kind") is None:
        return axes
    return f"{axes}-{corpus_label(str(config['dataset']['name']), noise['kind'], noise['snr_db'])}"
