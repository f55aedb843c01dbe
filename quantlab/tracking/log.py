"""Logging of a record as exactly one MLflow run, even if repeated or done by several processes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.tracking import describe, runs
from quantlab.tracking.runs import Identity
from quantlab.tracking.store import Store, TrackingError, translated
from quantlab.util.files import read_bytes

# An unsupported cell is not a failure (MLflow shows KILLED with the same red cross as FAILED).
_STATUS = {"ok": "FINISHED", "unsupported": "FINISHED"}


def log_once(store: Store, identity: Identity, sweeps: Sequence[str]) -> str:
    """Log a record unless it has a complete run, and return the id of its run.

    Args:
        store: the store to write to.
        identity: identifies the record.
        sweeps: the sweeps of its cell; if there are none, the run is tagged with the day of the record instead.

    Raises:
        TrackingError: the store cannot be reached or written.
        OSError: a file of the record cannot be read, or is not a regular file.
        ValueError: the record cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="quantlab-") as folder:
        record = _stage(Path(folder), store.root, identity.cell_id)
        with translated(store.root, store.tracking), store.lock:
            kept = _settled(store, identity)
            if kept is None:  # otherwise another process has logged it
                tag = " ".join(sweeps) or record.created_at[:10]
                _write(store, record, identity.tags() | {"quantlab.sweep": tag}, folder)
                kept = _settled(store, identity)
    if kept is None:
        raise TrackingError("MLflow: its run was deleted by another process while it was being written")
    return kept.id


def _settled(store: Store, record: Identity) -> runs.Run | None:
    return runs.settle(store, runs.search(store, cell_id=record.cell_id), record)


def _write(store: Store, record: Record, tags: dict[str, str], folder: str) -> None:
    """Write a complete run; its status is set last."""
    from mlflow.entities import Metric, Param, RunTag

    end_ms = describe.milliseconds(record.created_at)
    start_ms = end_ms - round(1000 * (record.stages.total_s or 0))
    run = store.client.create_run(
        store.experiment_id, start_ms, tags | runs.writer_tag(), run_name=describe.name(record)
    )
    run_id = run.info.run_id
    for path in sorted(Path(folder).iterdir()):
        store.client.log_artifact(run_id, path)
    _log_corpus(store, run_id, record)
    store.client.log_batch(
        run_id,
        metrics=[Metric(name, value, end_ms, 0) for name, value in describe.metrics(record).items()],
        params=[Param(name, value) for name, value in describe.params(record).items()],
        tags=[RunTag(name, value) for name, value in describe.tags(record).items()],
    )
    store.client.set_terminated(run_id, _STATUS.get(record.status, "FAILED"), end_ms)


def _log_corpus(store: Store, run_id: str, record: Record) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.exceptions import MlflowException

    fields = describe.corpus(record)
    if fields is None:
        return
    inputs: list[Any] = [DatasetInput(Dataset(**fields), [InputTag("mlflow.data.context", "evaluation")])]
    try:
        store.client.log_inputs(run_id, inputs)
    except MlflowException:  # if two processes log the first run of a corpus at once, one of them fails
        store.client.log_inputs(run_id, inputs)


def _stage(folder: Path, root: Path, cell_id: str) -> Record:
    """Read the record, and write its files and configuration to a folder, whose files become artifacts."""
    found = storage.read(root, cell_id)
    if found is None:
        raise FileNotFoundError("its record has just been deleted")
    record = storage.public(found)  # records of older versions may contain secrets
    for name in storage.EVERY_RAW_FILE:
        with contextlib.suppress(FileNotFoundError):
            (folder / name).write_bytes(read_bytes(storage.cells_dir(root) / cell_id / name, storage.RAW_BYTES))
    (folder / "record.json").write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    config = yaml.safe_dump(record.model_dump(mode="json")["config"], sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    if record.traceback:
        (folder / "traceback.txt").write_text(record.traceback, encoding="utf-8")
    return record
