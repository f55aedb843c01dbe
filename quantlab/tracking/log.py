"""Logging of a record as one MLflow run, however often it is asked for."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.tracking import describe, runs, writer
from quantlab.tracking.errors import TrackingError
from quantlab.tracking.markers import cell_marker, logged_run, remember
from quantlab.tracking.runs import Identity, Run
from quantlab.tracking.store import Store, with_store
from quantlab.util.files import read_bytes


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
        ValueError: the record cannot be read.
    """
    if tracking.name == "off":
        return None
    if run_id := logged_run(cell_marker(root, cell_id), root, tracking):
        return run_id
    record = runs.identity(root, cell_id)
    return with_store(root, tracking, lambda store: log_once(store, root, tracking, record, sweep))


def log_once(store: Store, root: str | Path, tracking: TrackingConfig, record: Identity, sweep: str) -> str:
    """The run of a record: the one that is there, or a new one."""
    found = list(runs.search(store, cell_id=record.cell_id))
    kept = runs.settle(store, found, record)
    if kept is not None:
        remember(cell_marker(root, record.cell_id), tracking, kept.id)
        return kept.id
    return log_missing(store, root, tracking, record, sweep, found)


def log_missing(
    store: Store, root: str | Path, tracking: TrackingConfig, record: Identity, sweep: str, found: Sequence[Run]
) -> str:
    """A new run for a record that has no complete one; `found` are the runs of its cell."""
    run_id = _write(store, root, record, sweep, runs.ours_to_complete(found, record))
    if found or store.shared:
        run_id = _settled(store, record)
    remember(cell_marker(root, record.cell_id), tracking, run_id)
    return run_id


def _settled(store: Store, record: Identity) -> str:
    """The run that is kept, now that ours is complete."""
    kept = runs.settle(store, list(runs.search(store, cell_id=record.cell_id)), record)
    if kept is None:
        raise TrackingError(f"MLflow: another process closed the run of cell {record.cell_id} while it was written")
    if kept.tags.get("reason", "").startswith(writer.INTERRUPTED):  # somebody gave us up too early
        store.client.delete_tag(kept.id, "reason")
    return kept.id


def _write(store: Store, root: str | Path, identity: Identity, sweep: str, begun: Run | None) -> str:
    """A complete run; every step can be repeated, so that one which was begun is gone through again."""
    found = storage.read(root, identity.cell_id)
    if found is None:
        raise FileNotFoundError(f"the record of cell {identity.cell_id} has just been deleted")
    record = storage.public(found)  # an older version may have left something in it
    end_ms = describe.milliseconds(record.created_at)
    run = begun or _create(store, record, identity, sweep, end_ms)
    _log_files(store, run, root, record)
    store.pause()
    _log_corpus(store, run.id, record)
    store.pause()
    _log_figures(store, run.id, record, end_ms)
    store.pause()
    store.client.set_terminated(run.id, _STATUS.get(record.status, "FAILED"), end_ms)
    return run.id


def _create(store: Store, record: Record, identity: Identity, sweep: str, end_ms: int) -> Run:
    run = store.client.create_run(
        store.experiment_id,
        start_time=end_ms - round(1000 * (record.stages.total_s or 0)),
        tags=identity.tags() | writer.tag() | {"quantlab.sweep": sweep},
        run_name=describe.name(record),
    )
    return Run.of(run)


# An unsupported cell is no failure (and MLflow draws KILLED with the same red cross as FAILED).
_STATUS = {
    "ok": "FINISHED",
    "unsupported": "FINISHED",
    "failed": "FAILED",
    "oom": "FAILED",
    "timeout": "FAILED",
}


def _log_figures(store: Store, run_id: str, record: Record, end_ms: int) -> None:
    from mlflow.entities import Metric, Param, RunTag

    store.client.log_batch(
        run_id,
        metrics=[Metric(name, value, end_ms, 0) for name, value in describe.metrics(record).items()],
        params=[Param(name, value) for name, value in describe.params(record).items()],
        tags=[RunTag(name, value) for name, value in describe.tags(record).items()],
    )


def _log_corpus(store: Store, run_id: str, record: Record) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    fields = describe.corpus(record)
    if fields is None:
        return
    inputs: list[Any] = [DatasetInput(Dataset(**fields), [InputTag("mlflow.data.context", "evaluation")])]
    try:
        store.client.log_inputs(run_id, inputs)
    except MlflowException:  # two runs that are the first of a corpus at the same time: one of them fails
        store.client.log_inputs(run_id, inputs)


def _log_files(store: Store, run: Run, root: str | Path, record: Record) -> None:
    """By the artifact store itself, as the client would ask for the run once more to learn where it is."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tempfile.TemporaryDirectory(prefix="quantlab-") as folder:
        _stage(Path(folder), root, record)
        place = get_artifact_repository(run.artifact_uri, tracking_uri=store.client.tracking_uri)
        for path in sorted(Path(folder).iterdir()):
            store.pause()
            place.log_artifact(str(path))


def _stage(folder: Path, root: str | Path, record: Record) -> None:
    """The files of the record and its configuration, in a folder that is copied in one go."""
    stored = storage.cells_dir(root) / record.cell_id
    for name in storage.RAW_FILES:
        with contextlib.suppress(FileNotFoundError):
            (folder / name).write_bytes(read_bytes(stored / name, storage.RAW_BYTES))
    (folder / "record.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    config = yaml.safe_dump(record.model_dump(mode="json")["config"], sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    if record.traceback:
        (folder / "traceback.txt").write_text(record.traceback, encoding="utf-8")
