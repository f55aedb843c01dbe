"""Batches: the composed cells of one submission, and which array task runs which.

<output_dir>/jobs/<batch>/batch.json             what is to be run; never changed
<output_dir>/jobs/<batch>/submitted.json         the SLURM job of each task, once sbatch has answered
<output_dir>/jobs/<batch>/started/<task>.json    the SLURM job that began a task last, and where
<output_dir>/jobs/<batch>/stages/<task>.json     what its cell in flight is doing
<output_dir>/jobs/<batch>/interrupted/<id>.json  why SLURM's time limit ended a cell
<output_dir>/jobs/<batch>/slurm/                 logs, and what submitit keeps
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quantlab.config.launcher import LauncherConfig
from quantlab.config.parse import parse_config
from quantlab.config.schema import RunConfig
from quantlab.grid.plan import Cell
from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.util.errors import shortened
from quantlab.util.files import read_bytes, read_note

SCHEMA_VERSION = 1
BATCH_BYTES = 256 << 20  # of batch.json; a thousand cells have 3 MB


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Planned(_Part):
    """One cell of a batch."""

    id: str
    label: str
    config: dict[str, Any]  # RunConfig, resolved for the job
    fingerprints: dict[str, str]
    versions: dict[str, str]
    before: str | None = None  # `created_at` of the record it had at submission; one with another is this batch's

    @classmethod
    def of(cls, cell: Cell, before: Record | None) -> Planned:
        return cls(
            id=cell.id,
            label=cell.label,
            config=cell.config.model_dump(mode="json"),
            fingerprints=cell.fingerprints,
            versions=cell.versions,
            before=before.created_at if before else None,
        )

    def run_config(self) -> RunConfig:
        """The configuration, validated.

        Raises:
            ConfigError: the batch is of another version of quantlab.
        """
        return parse_config(self.config)


class Batch(_Part):
    """What one submission is to run."""

    schema_version: int = SCHEMA_VERSION
    id: str
    created_at: str  # UTC, ISO 8601
    sweep: str  # under which MLflow finds the cells of one command
    launcher: LauncherConfig
    cells: tuple[Planned, ...]
    tasks: tuple[tuple[str, ...], ...] = Field(min_length=1)  # ids of cells; a task is one job of the array

    @model_validator(mode="after")
    def _has_the_cells_of_its_tasks(self) -> Batch:
        if missing := {id for task in self.tasks for id in task} - {cell.id for cell in self.cells}:
            raise ValueError(f"tasks: no cell {shortened(min(missing))}")
        return self

    def planned(self, task: int) -> list[Planned]:
        """The cells of a task, in the order they are run."""
        by_id = {cell.id: cell for cell in self.cells}
        return [by_id[id] for id in self.tasks[task]]

    @property
    def job_name(self) -> str:
        return f"quantlab-{self.id}"


def jobs_dir(root: str | Path) -> Path:
    return Path(root) / "jobs"


def folder(root: str | Path, batch_id: str) -> Path:
    return jobs_dir(root) / batch_id


def slurm_dir(root: str | Path, batch_id: str) -> Path:
    """Where the logs of the jobs are."""
    return folder(root, batch_id) / "slurm"


def start_file(root: str | Path, batch_id: str, task: int) -> Path:
    """Which job began a task last, where, when, and how often it was begun."""
    return folder(root, batch_id) / "started" / f"{task}.json"


def stage_file(root: str | Path, batch_id: str, task: int) -> Path:
    """What the cell in flight of a task is doing."""
    return folder(root, batch_id) / "stages" / f"{task}.json"


def new(sweep: str, launcher: LauncherConfig, cells: Sequence[Planned], tasks: Sequence[Sequence[str]]) -> Batch:
    """A batch of these cells, not on disk yet; ids of batches sort by time."""
    now = datetime.now(UTC)
    return Batch(
        id=f"{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}",
        created_at=now.isoformat(timespec="seconds"),
        sweep=sweep,
        launcher=launcher,
        cells=tuple(cells),
        tasks=tuple(map(tuple, tasks)),
    )


def write(root: str | Path, batch: Batch) -> None:
    """Put it on disk, whole."""
    slurm_dir(root, batch.id).mkdir(parents=True)
    slurm_dir(root, batch.id).chmod(0o700)  # submitit's script has the lines of setup, a log what they print
    write_json(folder(root, batch.id) / "batch.json", batch.model_dump(mode="json"))


def read(root: str | Path, batch_id: str) -> Batch:
    """A batch of this folder.

    Raises:
        ValueError: there is none of that id, or its file cannot be read.
    """
    path = folder(root, batch_id) / "batch.json"
    try:
        found = Batch.model_validate_json(read_bytes(path, BATCH_BYTES))
    except FileNotFoundError:
        raise ValueError(f"no batch {batch_id!r} below {jobs_dir(root)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{path} is no batch of this quantlab: {where}: {first['msg']}") from None
    if found.id != batch_id:
        raise ValueError(f"{path} is no batch of this quantlab: id: it is of another batch, {shortened(found.id)}")
    return found


def read_all(root: str | Path) -> Iterator[Batch]:
    """Every batch that can be read, the oldest first."""
    for path in sorted(jobs_dir(root).glob("*/batch.json")):
        try:
            yield read(root, path.parent.name)
        except (ValueError, OSError):
            continue  # of another version, or deleted meanwhile; records tell the rest


def made_since(root: str | Path, cell: Planned) -> Record | None:
    """The record that a cell got since it was submitted, whatever its status."""
    for record in storage.readable(root, [cell.id], on_unreadable=lambda why: None):
        return record if record.created_at != cell.before else None
    return None


def write_json(path: Path, value: object, durable: bool = True) -> None:
    """A small file that is there whole or not at all, for its owner alone, as it may hold settings.

    Takes no lock, so that a signal handler may call it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A small file; empty where there is none."""
    return read_note(path)
