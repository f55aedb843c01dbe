"""Search and deduplication of MLflow runs: one run per record is kept.

Several processes, on several machines, may log the same record at once, and each may be killed at any moment. None of
them asks the others. Each looks again when its run is complete, and keeps the same one as everybody else: of the
complete runs of a record the one with the smallest id. Whoever is last sees them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.records import storage
from quantlab.tracking import writer
from quantlab.tracking.markers import root_id
from quantlab.tracking.store import Store
from quantlab.util.files import read_bytes

_CLOSED = "KILLED"  # half of a run, whose process is gone
_PAGE = 1000  # runs of one answer


@dataclass(frozen=True)
class Run:
    """What is needed of a run to decide about it."""

    id: str
    status: str
    tags: dict[str, str]
    artifact_uri: str  # where its files go

    @classmethod
    def of(cls, run: Any) -> Run:
        """From MLflow's own."""
        return cls(str(run.info.run_id), run.info.status, dict(run.data.tags), run.info.artifact_uri)

    @property
    def complete(self) -> bool:
        """The status is set last, so that whoever finds such a run finds it complete."""
        return self.status in ("FINISHED", "FAILED")

    @property
    def begun(self) -> bool:
        return self.status in ("RUNNING", "SCHEDULED")

    def shows(self, record: Identity) -> bool:
        return self.tags.get("quantlab.record") == record.digest

    def is_of_root(self, record: Identity) -> bool:
        return self.tags.get("quantlab.root", record.root) == record.root


@dataclass(frozen=True)
class Identity:
    """Which record: a cell may have another one on another machine, and a later one in the same folder."""

    cell_id: str
    digest: str  # of record.json, 16 hexadecimal digits
    root: str  # the folder of records, by `markers.root_id`

    def tags(self) -> dict[str, str]:
        return {
            "quantlab.kind": "cell",
            "quantlab.cell_id": self.cell_id,
            "quantlab.record": self.digest,
            "quantlab.root": self.root,
        }


def identity(root: str | Path, cell_id: str) -> Identity:
    """Of a record on disk.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read, or is no regular file.
    """
    path = storage.cells_dir(root) / cell_id / "record.json"
    try:
        content = read_bytes(path, storage.RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"no record of cell {cell_id} below {storage.cells_dir(root)}") from None
    return Identity(cell_id, hashlib.sha256(content).hexdigest()[:16], root_id(root))


def search(store: Store, **tags: str) -> Iterator[Run]:
    """The runs that have these tags (`kind="cell"` is tag quantlab.kind), page by page."""
    yield from _pages(store, " and ".join(f"tags.`quantlab.{name}` = '{value}'" for name, value in tags.items()))


def close_interrupted(store: Store) -> int:
    """End the runs that nobody will ever complete, with the reason; how many there were."""
    begun = list(_pages(store, "attributes.status = 'RUNNING' and tags.`quantlab.kind` LIKE '%'"))
    return sum(_closed(store, run) for run in begun)


def _pages(store: Store, query: str) -> Iterator[Run]:
    token = None
    while True:
        page = store.client.search_runs([store.experiment_id], query, max_results=_PAGE, page_token=token)
        yield from map(Run.of, page)
        token = page.token
        if not token:
            return


def settle(store: Store, runs: Sequence[Run], record: Identity) -> Run | None:
    """Keep one complete run of the record, if there is one, and delete what it makes superfluous.

    Args:
        store: where the runs are.
        runs: of the record's cell, as they were found.
        record: what should be shown once.

    Returns:
        The run that is kept.
    """
    closed = {run.id for run in runs if _closed(store, run)}
    complete = [run for run in runs if run.complete and run.shows(record)]
    kept = min(complete, key=lambda run: run.id, default=None)
    for run in runs if kept is not None else ():
        if run is not kept and _is_superfluous(run, record, run.id in closed):
            store.client.delete_run(run.id)
    return kept


def ours_to_complete(runs: Sequence[Run], record: Identity) -> Run | None:
    """A run of the record that this very process began, before a request failed."""
    begun = [run for run in runs if run.begun and run.shows(record) and writer.is_me(run.tags)]
    return min(begun, key=lambda run: run.id, default=None)


def _is_superfluous(run: Run, record: Identity, closed: bool) -> bool:
    """Once the record has its complete run: a second one, half of one, or one of the record that it replaced."""
    if run.begun and not closed:
        return run.shows(record) and writer.is_me(run.tags)
    return run.shows(record) or run.is_of_root(record)


def _closed(store: Store, run: Run) -> bool:
    """Close the run if nobody else will; whether it was."""
    from mlflow.entities import RunTag

    why = writer.why_gone(run.tags) if run.begun else None
    if why is None:
        return False
    store.client.log_batch(run.id, tags=[RunTag("status", "interrupted"), RunTag("reason", why)])
    store.client.set_terminated(run.id, _CLOSED)
    return True
