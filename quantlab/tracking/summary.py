"""Summary run of a sweep: table, plots, best figures, links to its cells."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quantlab.records import storage
from quantlab.records.schema import Record, to_json
from quantlab.tracking import describe, runs, view
from quantlab.tracking.store import Store
from quantlab.util.files import read_note
from quantlab.util.redact import redact

_VIEWS = 30  # number of sweeps whose views are kept
Draw = Callable[[Sequence[str]], tuple[str, Mapping[str, bytes]]]  # cells → table, file name → PNG


def note_sweep(root: str | Path, sweep: str, cell_ids: Sequence[str]) -> None:
    """Store which cells a sweep has, in <root>/sweeps/<sweep>.json, so that it can be logged later."""
    path = Path(root) / "sweeps" / f"{sweep}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        fresh.write_text(json.dumps({"cells": list(cell_ids)}, indent=1), encoding="utf-8")
        fresh.replace(path)


def sweeps(root: str | Path) -> dict[str, list[str]]:
    """The stored sweeps, each with its cells."""
    paths = sorted((Path(root) / "sweeps").glob("*.json"))
    found = {path.stem: read_note(path).get("cells") for path in paths if "." not in path.stem}
    return {sweep: list(map(str, cells)) for sweep, cells in found.items() if isinstance(cells, list)}


def content(cells: Sequence[Record]) -> str:
    """Hash of the records that a summary shows, in any order."""
    text = to_json(sorted([cell.cell_id, cell.created_at] for cell in cells))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def summarise(
    store: Store, sweep: str, cell_ids: Sequence[str], draw: Draw, shown: Mapping[str, str], deleted: bool
) -> None:
    """Write or update the summary run, unless one already shows the same records.

    Args:
        store: the store to write to.
        sweep: id of the sweep.
        cell_ids: cells of the sweep.
        draw: creates table and plots; only called if they are needed.
        shown: cell id → run id.
        deleted: whether a run that a person deleted counts as existing.
    """
    cells = storage.readable(store.root, cell_ids, on_unreadable=lambda why: None)  # reported when they were logged
    if not cells:
        return
    with store.lock:
        found = runs.search(store, deleted, kind="summary", sweep=sweep)
    if any(run.complete and run.tags.get("quantlab.content") == content(cells) for run in found):
        return
    table, plots = draw(cell_ids)  # takes seconds, so it is done without the lock
    table = redact(table)
    with store.lock:
        run_id = _one(store, sweep) or _create(store, sweep)
        _log_files(store, run_id, table, plots)
        _save_views(store, sweep, sorted({split for cell in cells for split in cell.splits}))
        links = [shown[cell.cell_id] for cell in cells if cell.cell_id in shown]
        _log_figures(store, run_id, cells, view.summary_note(table, links, store.experiment_id))
        _one(store, sweep)


def _one(store: Store, sweep: str) -> str | None:
    """The summary run of the sweep, complete or not: that with the smallest id; others are deleted."""
    found = runs.search(store, kind="summary", sweep=sweep)
    kept = min((run.id for run in found if run.status != runs.CLOSED), default=None)
    for run in found:
        if run.id != kept:
            store.client.delete_run(run.id)
    return kept


def _create(store: Store, sweep: str) -> str:
    tags = {"status": "summary", "quantlab.kind": "summary", "quantlab.sweep": sweep} | runs.writer_tag()
    return str(store.client.create_run(store.experiment_id, tags=tags, run_name=f"sweep-{sweep}").info.run_id)


def _log_files(store: Store, run_id: str, table: str, plots: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="quantlab-") as folder:
        (Path(folder) / "table.txt").write_text(table, encoding="utf-8")
        for name, drawn in plots.items():
            path = Path(folder) / "plots" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(drawn)
        store.client.log_artifacts(run_id, folder)


def _save_views(store: Store, sweep: str, splits: Sequence[str]) -> None:
    """Save the view of all cells and that of the sweep; few are kept, since MLflow always reads all of them."""
    if not splits:
        return
    client, experiment_id = store.client, store.experiment_id
    client.set_experiment_tag(experiment_id, *view.saved_view(splits))
    client.set_experiment_tag(experiment_id, *view.saved_view(splits, sweep, round(1000 * time.time())))
    for tag in view.sweep_views(client.get_experiment(experiment_id).tags)[:-_VIEWS]:
        client.delete_experiment_tag(experiment_id, tag)


def _log_figures(store: Store, run_id: str, cells: Sequence[Record], note: str) -> None:
    from mlflow.entities import Metric, RunTag

    now_ms = round(1000 * time.time())
    tags = {"mlflow.note.content": note, "status": "summary", "quantlab.content": content(cells)}
    store.client.log_batch(
        run_id,
        metrics=[Metric(name, value, now_ms, 0) for name, value in describe.headline(cells).items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    store.client.set_terminated(run_id, "FINISHED", now_ms)
