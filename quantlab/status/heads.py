"""The head of a record: what became of the cell, without the receipt and the figures, which are most of the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from quantlab import storage
from quantlab.config import corpus_label

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
    return {cell_id: _head(storage.cells_dir(root) / cell_id / "record.json") for cell_id in storage.recorded(root)}


def _head(path: Path) -> Head:
    try:
        front, end, _ = path.read_text(encoding="utf-8").partition(_END)
        found = json.loads(front.rstrip(", \n") + "}" if end else front)
        return Head(found["status"], found["reason"], found["created_at"], _label(found["config"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Head("unreadable", f"{path} is no record of quantlab ({error})", "", path.parent.name)


def _label(config: dict[str, dict[str, object]]) -> str:
    """As `RunConfig.label`."""
    axes = "-".join(str(config[axis]["name"]) for axis in ("model", "quant", "device"))
    noise = config["dataset"].get("noise")
    if not isinstance(noise, dict) or noise.get("kind") is None:
        return axes
    return f"{axes}-{corpus_label(str(config['dataset']['name']), noise['kind'], noise['snr_db'])}"
