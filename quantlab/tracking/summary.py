"""Summary run of a sweep: table, plots, best figures, links to its cells."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.records.schema import Record, to_json
from quantlab.tracking import describe, runs, view, writer
from quantlab.tracking.markers import cell_marker, logged_run, remember, sweep_marker
from quantlab.tracking.store import Store, with_store
from quantlab.util.redact import redact

_VIEWS = 30  # of sweeps


def log_sweep(
    root: str | Path,
    tracking: TrackingConfig,
    sweep: str,
    cell_ids: Sequence[str],
    table: str,
    plots: Callable[[], Mapping[str, bytes]] = dict,
) -> str | None:
    """Show a whole grid as one summary run with its table; the run of an earlier call for this sweep is updated.

    `table` is plain text, as `quantlab.report.table.text` makes it. `plots` draws the figures (file name → PNG), and
    is called only if there is something new to show.

    Returns:
        The id of the run; None if tracking is off.

    Raises:
        TrackingError: the store cannot be reached or written.
    """
    if tracking.name == "off":
        return None
    cells = read(root, cell_ids)
    if run_id := logged_run(sweep_marker(root, sweep, fingerprint(cells)), root, tracking):
        return run_id
    drawn = plots()
    return with_store(root, tracking, lambda store: summarise(store, root, tracking, sweep, cells, table, drawn))


def read(root: str | Path, cell_ids: Sequence[str]) -> list[Record]:
    """The records that there are and that can be read."""
    return storage.readable(root, cell_ids, on_unreadable=lambda why: None)


def fingerprint(cells: Sequence[Record]) -> str:
    """What a summary shows, as a hash."""
    text = to_json([[cell.cell_id, cell.created_at] for cell in cells])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def summarise(
    store: Store,
    root: str | Path,
    tracking: TrackingConfig,
    sweep: str,
    cells: Sequence[Record],
    table: str,
    plots: Mapping[str, bytes],
) -> str:
    """Write the summary run; of several that were begun at once the smallest id is kept."""
    run_id = _one(store, sweep) or _create(store, sweep)
    store.pause()
    _log_plots(store, run_id, plots)
    store.pause()
    shown = _join(store, root, tracking, sweep, cells)
    store.pause()
    _fill(store, run_id, sweep, cells, shown, redact(table))
    kept = _one(store, sweep) or run_id
    marker = sweep_marker(root, sweep, fingerprint(cells))
    for old in marker.parent.glob(f"{sweep}.*.json"):
        old.unlink(missing_ok=True)
    remember(marker, tracking, kept)
    return kept


def _one(store: Store, sweep: str) -> str | None:
    """The summary run of the sweep, complete or not; what is more than one goes."""
    found = sorted(run.id for run in runs.search(store, kind="summary", sweep=sweep))
    for run_id in found[1:]:
        store.client.delete_run(run_id)
    return found[0] if found else None


def _create(store: Store, sweep: str) -> str:
    tags = {"status": "summary", "quantlab.kind": "summary", "quantlab.sweep": sweep} | writer.tag()
    return str(store.client.create_run(store.experiment_id, tags=tags, run_name=f"sweep-{sweep}").info.run_id)


def _join(store: Store, root: str | Path, tracking: TrackingConfig, sweep: str, cells: Sequence[Record]) -> list[str]:
    """The runs of the cells, each with this sweep in its tag: a cell may belong to several."""
    wanted = [run for cell in cells if (run := logged_run(cell_marker(root, cell.cell_id), root, tracking))]
    found = {run.id: run.tags.get("quantlab.sweep", "") for run in runs.search(store, kind="cell")}
    shown = [run_id for run_id in wanted if run_id in found]
    for run_id in shown:
        if sweep not in found[run_id].split():
            store.client.set_tag(run_id, "quantlab.sweep", f"{found[run_id]} {sweep}".strip())
    return shown


def _log_plots(store: Store, run_id: str, plots: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="quantlab-") as folder:
        for name, content in plots.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if plots:
            store.client.log_artifacts(run_id, folder, "plots")


def _save_views(store: Store, sweep: str, splits: Sequence[str]) -> None:
    """The view of all cells and that of the sweep; MLflow reads all of them at once, so that only some are kept."""
    if not splits:
        return
    client, experiment_id = store.client, store.experiment_id
    client.set_experiment_tag(experiment_id, *view.saved_view(splits))
    client.set_experiment_tag(experiment_id, *view.saved_view(splits, sweep, round(1000 * time.time())))
    for tag in view.sweep_views(client.get_experiment(experiment_id).tags)[:-_VIEWS]:
        client.delete_experiment_tag(experiment_id, tag)


def _fill(store: Store, run_id: str, sweep: str, cells: Sequence[Record], shown: Sequence[str], table: str) -> None:
    from mlflow.entities import Metric, RunTag

    now_ms = round(1000 * time.time())
    note = view.summary_note(table, shown, store.experiment_id)
    tags: dict[str, Any] = {"mlflow.note.content": note, "status": "summary", "quantlab.content": fingerprint(cells)}
    store.client.log_text(run_id, table, "table.txt")
    _save_views(store, sweep, sorted({split for cell in cells for split in cell.splits}))
    store.client.log_batch(
        run_id,
        metrics=[Metric(name, value, now_ms, 0) for name, value in describe.headline(cells).items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )
    store.client.set_terminated(run_id, "FINISHED", now_ms)
