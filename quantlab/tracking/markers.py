"""Local notes on what MLflow has already, so that it need not be asked or imported.

<root>/cells/<cell_id>/mlflow.json      the run of the record, by store
<root>/sweeps/<sweep>.<content>.json    the summary run, by store
<root>/sweeps/<sweep>.json              which cells the sweep has
<root>/.mlflow.json                     the experiment, by store
<root>/.root.json                       which folder of records this is
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantlab.config.schema import TrackingConfig
from quantlab.records.storage import cells_dir
from quantlab.util.address import Address
from quantlab.util.files import read_note


def database(root: str | Path) -> Path:
    """Of the local store."""
    return Path(root).resolve() / "mlflow.db"


def cell_marker(root: str | Path, cell_id: str) -> Path:
    """In the cell's folder, so that it goes when the record is replaced."""
    return cells_dir(root) / cell_id / "mlflow.json"


def sweep_marker(root: str | Path, sweep: str, content: str) -> Path:
    """One for each content (a hash of what the summary shows), so that a changed sweep is logged again."""
    return Path(root) / "sweeps" / f"{sweep}.{content}.json"


def experiment_marker(root: str | Path) -> Path:
    return Path(root) / ".mlflow.json"


def logged_run(marker: Path, root: str | Path, tracking: TrackingConfig) -> str | None:
    """Id of the run that was logged to this store before, by its marker; without importing MLflow."""
    run_id = recalled(marker, tracking)
    if run_id is None or tracking.name == "server":
        return run_id
    return run_id if _in_database(database(root), run_id) else None


def recalled(marker: Path, tracking: TrackingConfig) -> str | None:
    """What was remembered for this store."""
    found = _read(marker).get(_key(tracking))
    return found if isinstance(found, str) else None


def remember(marker: Path, tracking: TrackingConfig, value: str) -> None:
    """Leave the marker that `recalled` reads; it may hold several stores."""
    if recalled(marker, tracking) != value:
        _write(marker, _read(marker) | {_key(tracking): value})


def forget(marker: Path, tracking: TrackingConfig) -> None:
    """Take back what was remembered for this store."""
    if recalled(marker, tracking) is not None:
        _write(marker, {key: value for key, value in _read(marker).items() if key != _key(tracking)})


def begin_sweep(root: str | Path, sweep: str, cell_ids: Sequence[str]) -> None:
    """Note which cells a sweep has, for whoever logs them later."""
    path = Path(root) / "sweeps" / f"{sweep}.json"
    if not path.exists():
        _write(path, {"cells": list(cell_ids)})


def sweeps(root: str | Path) -> dict[str, list[str]]:
    """Sweep → its cells."""
    paths = sorted((Path(root) / "sweeps").glob("*.json"))
    found = {path.stem: _read(path).get("cells", []) for path in paths if "." not in path.stem}
    return {sweep: list(map(str, cells)) for sweep, cells in found.items() if isinstance(cells, list)}


def root_id(root: str | Path) -> str:
    """Which folder of records this is, wherever it is mounted; a copy of it is another.

    The note in the folder holds its own inode number, which a copy does not share.
    """
    path = Path(root) / ".root.json"
    if found := _own_id(path):
        return found
    fresh = path.with_name(f".root.{uuid.uuid4().hex[:8]}.tmp")
    fresh.touch()
    made = {"id": uuid.uuid4().hex[:16], "inode": fresh.stat().st_ino}
    fresh.write_text(json.dumps(made), encoding="utf-8")
    try:
        os.link(fresh, path)  # of several processes the first one wins
    except OSError:
        if _own_id(path) is None:  # the note of the folder that this one was copied from
            fresh.replace(path)
    fresh.unlink(missing_ok=True)
    return _own_id(path) or str(made["id"])


def _own_id(path: Path) -> str | None:
    found = _read(path)
    with contextlib.suppress(OSError):
        return str(found["id"]) if found and found["inode"] == path.stat().st_ino else None
    return None


def _key(tracking: TrackingConfig) -> str:
    """Which store; a local one by name, since its folder may have moved together with the records."""
    place = "local" if tracking.name == "local" else str(tracking.uri)
    mark = tracking.uri.mark if isinstance(tracking.uri, Address) else ""
    return f"{place}{mark} {tracking.experiment}"


def _read(path: Path) -> dict[str, Any]:
    return read_note(path)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fresh.write_text(json.dumps(content, indent=1), encoding="utf-8")
    fresh.replace(path)


def _in_database(path: Path, run_id: str) -> bool:
    """Whether the database holds the run (deleted by a user counts: that was their wish)."""
    return bool(query(path, "SELECT 1 FROM runs WHERE run_uuid = ?", run_id))


def query(path: Path, sql: str, value: str) -> list[tuple[Any, ...]]:
    """Ask SQLite itself, since MLflow would take 4 s to answer.

    The tables and columns asked for have kept their names since MLflow 1.0; should they change, the answer is
    nothing, and MLflow is asked.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, [value]).fetchall()
    except sqlite3.Error:
        return []
