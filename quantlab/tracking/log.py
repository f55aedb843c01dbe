"""A record becomes a run, a sweep becomes a summary run; each once, however often and by whomever it is asked."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from quantlab import storage
from quantlab.config import TrackingConfig
from quantlab.record import Record, to_json
from quantlab.redact import redact
from quantlab.tracking import describe, view
from quantlab.tracking.store import Store, cell_marker, logged_run, opened, remember, sweep_marker

_MANY = 50_000  # runs; the most that MLflow returns at once
_UNFINISHED = ("RUNNING", "SCHEDULED")  # a run whose process was killed while it logged


def log_cell(root: str | Path, tracking: TrackingConfig, cell_id: str, sweep: str) -> str | None:
    """Show a record in MLflow as a finished run.

    A record that is there already is not logged again (and, with its marker in place, costs a millisecond). A run
    of an older record of the same cell is deleted, as its record was replaced.

    Returns:
        The id of the run; None if tracking is off.

    Raises:
        TrackingError: the store cannot be reached or written; the record is untouched, so that a later call can
            log it.
        FileNotFoundError: there is no record of that id.
    """
    if tracking.name == "off":
        return None
    marker = cell_marker(root, cell_id)
    if run_id := logged_run(marker, root, tracking):
        return run_id
    record = storage.read(root, cell_id)
    if record is None:
        raise FileNotFoundError(f"no record of cell {cell_id} below {storage.cells_dir(root)}")
    with opened(root, tracking) as store:
        run_id = _find_or_replace(store, record) or _create(store, root, record, sweep)
        remember(marker, tracking, run_id)
    return run_id


def _find_or_replace(store: Store, record: Record) -> str | None:
    """The finished run of exactly this record, if there is one; what else shows this cell goes."""
    found = None
    for run in _search(store, "quantlab.cell_id", record.cell_id):
        same = run.data.tags.get("quantlab.created_at") == record.created_at
        if same and found is None and run.info.status not in _UNFINISHED:
            found = run.info.run_id
        else:
            store.client.delete_run(run.info.run_id)
    return found


def _search(store: Store, tag: str, value: str) -> list[Any]:
    return list(store.client.search_runs([store.experiment_id], f"tags.`{tag}` = '{value}'", max_results=_MANY))


def _create(store: Store, root: str | Path, record: Record, sweep: str) -> str:
    from mlflow.entities import Metric, Param

    end_ms = describe.milliseconds(record.created_at)
    run = store.client.create_run(
        store.experiment_id,
        start_time=end_ms - round(1000 * (record.stages.total_s or 0)),
        tags=describe.tags(record, sweep),
        run_name=_name(record),
    )
    run_id = str(run.info.run_id)
    store.client.log_batch(
        run_id,
        metrics=[Metric(name, value, end_ms, 0) for name, value in describe.metrics(record).items()],
        params=[Param(name, value) for name, value in describe.params(record).items()],
    )
    _log_corpus(store, run_id, record)
    with tempfile.TemporaryDirectory(prefix="quantlab-") as folder:
        _stage_artifacts(Path(folder), root, record)
        store.client.log_artifacts(run_id, folder)
    # Last, so that whoever finds the run finished finds it complete.
    store.client.set_terminated(run_id, _STATUS.get(record.status, "FAILED"), end_ms)
    return run_id


# An unsupported cell is no failure (and MLflow draws KILLED with the same red cross as FAILED).
_STATUS = {
    "ok": "FINISHED",
    "unsupported": "FINISHED",
    "failed": "FAILED",
    "oom": "FAILED",
    "timeout": "FAILED",
}


def _name(record: Record) -> str:
    return "-".join(str(record.setting(f"{axis}.name")) for axis in ("model", "quant", "device"))


def _log_corpus(store: Store, run_id: str, record: Record) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if fields := describe.corpus(record):
        context = InputTag("mlflow.data.context", "evaluation")
        store.client.log_inputs(run_id, [DatasetInput(Dataset(**fields), [context])])


def _stage_artifacts(folder: Path, root: str | Path, record: Record) -> None:
    """The files of the record and its configuration, in a folder that is copied in one go."""
    stored = storage.cells_dir(root) / record.cell_id
    for name in ("utterances.jsonl", "batches.jsonl"):
        if (stored / name).exists():
            shutil.copyfile(stored / name, folder / name)
    public = Record.model_validate(redact(record.model_dump()))
    (folder / "record.json").write_text(public.model_dump_json(indent=1) + "\n", encoding="utf-8")
    config = yaml.safe_dump(public.model_dump(mode="json")["config"], sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    if public.traceback:
        (folder / "traceback.txt").write_text(public.traceback, encoding="utf-8")


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
    cells = [record for cell_id in cell_ids if (record := storage.read(root, cell_id)) is not None]
    marker = sweep_marker(root, sweep, _fingerprint(cells))
    if run_id := logged_run(marker, root, tracking):
        return run_id
    drawn = plots()
    with opened(root, tracking) as store:
        run_id = _summary_run(store, sweep)
        _log_plots(store, run_id, drawn)
        runs = [run for cell in cells if (run := logged_run(cell_marker(root, cell.cell_id), root, tracking))]
        _fill_summary(store, run_id, cells, runs, str(redact(table)))
        for old in marker.parent.glob(f"{sweep}.*.json"):
            old.unlink()
        remember(marker, tracking, run_id)
    return run_id


def _log_plots(store: Store, run_id: str, plots: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="quantlab-") as folder:
        for name, content in plots.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if plots:
            store.client.log_artifacts(run_id, folder, "plots")


def _fingerprint(cells: Sequence[Record]) -> str:
    text = to_json([[cell.cell_id, cell.created_at] for cell in cells])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _summary_run(store: Store, sweep: str) -> str:
    for run in _search(store, "quantlab.sweep", sweep):
        if run.data.tags.get("quantlab.kind") == "summary":
            return str(run.info.run_id)
    tags = {"status": "summary", "quantlab.kind": "summary", "quantlab.sweep": sweep}
    return str(store.client.create_run(store.experiment_id, tags=tags, run_name=f"sweep-{sweep}").info.run_id)


def _fill_summary(store: Store, run_id: str, cells: Sequence[Record], runs: Sequence[str], table: str) -> None:
    from mlflow.entities import Metric, RunTag

    now_ms = round(1000 * time.time())
    store.client.log_batch(
        run_id,
        metrics=[Metric(name, value, now_ms, 0) for name, value in describe.headline(cells).items()],
        tags=[RunTag("mlflow.note.content", view.summary_note(table, runs, store.experiment_id))],
    )
    store.client.log_text(run_id, table, "table.txt")
    if splits := sorted({split for cell in cells for split in cell.splits}):
        store.client.set_experiment_tag(store.experiment_id, *view.saved_view(splits))
    store.client.set_terminated(run_id, "FINISHED", now_ms)


def rebuild(root: str | Path, tracking: TrackingConfig) -> int:
    """Make the view agree with the records: what is missing is logged, in the order it was measured.

    In a local store, the runs of cells whose record is gone are deleted; a server may show other roots' records.
    For a store from scratch, delete `mlflow.db` and `artifacts/` first.

    Returns:
        The number of records.

    Raises:
        TrackingError: the store cannot be reached or written; call again to go on.
        ValueError: a record cannot be read.
    """
    found = sorted(storage.read_all(root), key=lambda record: record.created_at)
    if tracking.name == "off":
        return len(found)
    for record in found:
        log_cell(root, tracking, record.cell_id, sweep=record.created_at[:10])
    if tracking.name == "local":
        _delete_orphans(root, tracking, {record.cell_id for record in found})
    return len(found)


def _delete_orphans(root: str | Path, tracking: TrackingConfig, cell_ids: set[str]) -> None:
    with opened(root, tracking) as store:
        for run in _search(store, "quantlab.kind", "cell"):
            if run.data.tags["quantlab.cell_id"] not in cell_ids:
                store.client.delete_run(run.info.run_id)
