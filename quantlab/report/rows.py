"""Records as plain rows: one flat object per cell, the JSON of docs and of every other format's making."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantlab import record as records
from quantlab.record import Receipt, Record

Row = dict[str, Any]

# Key of the row → key of the resolved configuration.
_SETTINGS = {
    "model": "model.name",
    "weights": "model.weights",
    "quant": "quant.name",
    "library": "quant.library",
    "bits": "quant.bits",
    "format": "quant.format",
    "scheme": "quant.scheme",
    "granularity": "quant.granularity",
    "group_size": "quant.group_size",
    "target": "quant.target",
    "head": "quant.head",
    "device": "device.name",
    "threads": "device.threads",
    "runtime": "runtime.name",
    "dataset": "dataset.name",
    "protocol": "protocol.name",
    "batch_size": "protocol.batch_size",
    "seed": "seed",
}


def warn(message: str) -> None:
    """Say it on stderr, so that stdout holds the report and nothing else."""
    print(f"quantlab: {message}", file=sys.stderr)


def rows(root: str | Path, on_unreadable: Callable[[str], None] = warn) -> list[Row]:
    """One row per record below `root`, baseline first within each model, dataset and device.

    A figure that does not exist is None, never 0. A record that cannot be read is left out, and `on_unreadable`
    is told.
    """
    return sorted(map(row, _readable(root, on_unreadable)), key=_order)


def _readable(root: str | Path, on_unreadable: Callable[[str], None]) -> Iterator[Record]:
    for folder in sorted(path.parent for path in records.cells_dir(root).glob("[!.]*/record.json")):
        try:
            found = records.read(root, folder.name)
        except (ValueError, OSError) as error:
            on_unreadable(str(error))
        else:
            if found is not None:
                yield found


def _order(row: Row) -> tuple[Any, ...]:
    axes = tuple(str(row[key]) for key in ("dataset", "model", "weights", "device", "runtime", "protocol"))
    return (
        *axes,
        row["quant"] != "none",
        str(row["library"]),
        -(row["bits"] or 0),
        str(row["quant"]),
        row["cell_id"],
    )


def row(record: Record) -> Row:
    """The record's figures; WER, CER, shares and reductions are fractions, `_s` seconds, `_bytes` bytes."""
    receipt = record.receipt
    return {
        "cell_id": record.cell_id,
        "status": record.status,
        "reason": record.reason,
        **{name: record.setting(key) for name, key in _SETTINGS.items()},
        "size_bytes": None if receipt is None else receipt.size_bytes,
        "size_reduction": record.size_reduction,
        "params": None if receipt is None else receipt.params,
        "splits": {name: result.model_dump(mode="json") for name, result in record.splits.items()},
        **record.stages.model_dump(),
        "cold_start_s": record.cold_start_s,
        "speed": None if record.speed is None else record.speed.model_dump(mode="json"),
        "fixed_work": None if record.fixed_work is None else record.fixed_work.model_dump(mode="json"),
        "noise": None if record.noise is None else record.noise.model_dump(mode="json"),
        "energy_j": record.energy_j,
        "energy_source": record.energy_source,
        "peak_memory_bytes": record.peak_memory_bytes,
        "peak_reserved_bytes": record.peak_reserved_bytes,
        "receipt": None if receipt is None else _receipt(receipt),
        "environment": record.environment,
        "fingerprints": record.fingerprints,
        "problems": len(record.problems),
        "created_at": record.created_at,
    }


def _receipt(receipt: Receipt) -> Row:
    return receipt.model_dump(exclude={"modules", "params", "size_bytes"})


def to_json(found: list[Row]) -> str:
    """One JSON list, in ASCII whatever the terminal's encoding, and strict: a NaN would raise."""
    return json.dumps(found, indent=1, allow_nan=False)
