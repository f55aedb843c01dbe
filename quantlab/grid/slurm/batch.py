"""Batches: the composed cells of one submission, and their division into array tasks.

<output_dir>/jobs/<batch>/batch.json             the cells to run; never changed
<output_dir>/jobs/<batch>/submitted.json         SLURM job of each task, written after sbatch has answered
<output_dir>/jobs/<batch>/started/<task>.json    SLURM job and node of the last start of a task
<output_dir>/jobs/<batch>/stages/<task>.json     stage of the task's running cell
<output_dir>/jobs/<batch>/interrupted/<id>.json  why SLURM's time limit ended a cell
<output_dir>/jobs/<batch>/forgotten/<id>         a cell that `quantlab forget` has removed
<output_dir>/jobs/<batch>/slurm/                 the jobs' output
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
BATCH_BYTES = 256 << 20  # maximum of batch.json; a thousand cells have 3 MB


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Planned(_Part):
    """One cell of a batch."""

    id: str
    label: str
    config: dict[str, Any]  # RunConfig, resolved for the job's node
    fingerprints: dict[str, str]
    versions: dict[str, str]
    before: str | None = None  # `created_at` of its record at submission; any other record is from this batch

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
        """Validate the configuration.

        Raises:
            ConfigError: the batch was written by another version of quantlab.
        """
        return parse_config(self.config)


class Batch(_Part):
    """Cells and tasks of one submission."""

    schema_version: int = SCHEMA_VERSION
    id: str
    created_at: str  # UTC, ISO 8601
    sweep: str  # id that groups the cells of one command in MLflow
    launcher: LauncherConfig
    cells: tuple[Planned, ...]
    tasks: tuple[tuple[str, ...], ...] = Field(min_length=1)  # cell ids by task; a task is one job of the array

    @model_validator(mode="after")
    def _has_the_cells_of_its_tasks(self) -> Batch:
        if missing := {id for task in self.tasks for id in task} - {cell.id for cell in self.cells}:
            raise ValueError(f"tasks: no cell {shortened(min(missing))}")
        return self

    def planned(self, task: int) -> list[Planned]:
        """Cells of a task in execution order."""
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
    """Folder of the jobs' logs."""
    return folder(root, batch_id) / "slurm"


def start_file(root: str | Path, batch_id: str, task: int) -> Path:
    """File with the last start of a task: job, node, time, and number of starts."""
    return folder(root, batch_id) / "started" / f"{task}.json"


def stage_file(root: str | Path, batch_id: str, task: int) -> Path:
    """File with the stage of a task's running cell."""
    return folder(root, batch_id) / "stages" / f"{task}.json"


def forgotten_file(root: str | Path, batch_id: str, cell_id: str) -> Path:
    """File whose existence says that a cell of the batch is no longer to be shown, as it has been forgotten."""
    return folder(root, batch_id) / "forgotten" / cell_id


def new(sweep: str, launcher: LauncherConfig, cells: Sequence[Planned], tasks: Sequence[Sequence[str]]) -> Batch:
    """Create a batch of these cells without writing it; batch ids sort by time."""
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
    """Write a batch atomically."""
    slurm_dir(root, batch.id).mkdir(parents=True)
    slurm_dir(root, batch.id).chmod(0o700)  # private: the output of the setup lines
    write_json(folder(root, batch.id) / "batch.json", batch.model_dump(mode="json"))


def read(root: str | Path, batch_id: str) -> Batch:
    """Read a batch.

    Raises:
        ValueError: there is no batch of that id, or its file cannot be read.
    """
    path = folder(root, batch_id) / "batch.json"
    try:
        found = Batch.model_validate_json(read_bytes(path, BATCH_BYTES))
    except FileNotFoundError:
        raise ValueError(f"no batch {batch_id!r} in {jobs_dir(root)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{path} is not a batch of this quantlab: {where}: {first['msg']}") from None
    if found.id != batch_id:
        raise ValueError(
            f"{path} is not a batch of this quantlab: id: it belongs to another batch, {shortened(found.id)}"
        )
    return found


def read_all(root: str | Path) -> Iterator[Batch]:
    """All readable batches, oldest first."""
    for path in sorted(jobs_dir(root).glob("*/batch.json")):
        try:
            yield read(root, path.parent.name)
        except (ValueError, OSError):
            continue  # from another version, or just deleted; the records are sufficient


def made_since(root: str | Path, cell: Planned) -> Record | None:
    """Record that a cell got since its submission, of any status."""
    for record in storage.readable(root, [cell.id], on_unreadable=lambda why: None):
        return record if record.created_at != cell.before else None
    return None


def write_json(path: Path, value: object, durable: bool = True) -> None:
    """Write a small file atomically, readable only for its owner, as it may contain settings.

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
    """Read a small file; empty if missing."""
    return read_note(path)
