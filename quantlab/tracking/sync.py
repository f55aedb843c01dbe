"""Synchronisation of records with MLflow: one run per record, also from several machines.

The records on disk are authoritative. They are compared with the runs in the store by tags, and those that are missing
or differ are logged. This can be repeated, killed at any moment, and done by several processes at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.tracking import runs, summary
from quantlab.tracking.log import log_once
from quantlab.tracking.runs import Identity, Run
from quantlab.tracking.store import Store, TrackingError, Unreachable, connected
from quantlab.tracking.summary import Draw

_AT_ONCE = 8  # records logged to a server in parallel; a local store takes one at a time


@dataclass(frozen=True)
class Synced:
    """Result of `sync`."""

    experiment_id: str  # MLflow's
    records: int  # in MLflow now
    logged: int  # by this call; the others were there before
    interrupted: int  # runs that were closed, since their writer has ended
    problems: tuple[str, ...]  # of records that cannot be read, or that MLflow refused


def sync(
    root: str | Path,
    tracking: TrackingConfig,
    draw: Draw,
    cells: Sequence[str] | None = None,
    sweeps: Sequence[str] | None = None,
    limit_s: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Synced:
    """Log the records that are missing in MLflow.

    Also closes runs that killed processes left open and deletes duplicate runs. If all cells are compared, runs of a
    local store whose record no longer exists are deleted too; a server may have records of other folders. Existing runs
    are found by one search, so the cost depends on what is missing.

    Args:
        root: the folder of records.
        tracking: the store to write to.
        draw: creates table and plots of a sweep from the ids of its cells.
        cells: ids of the cells to compare; None: all.
        sweeps: sweeps whose summary is logged; None: all.
        limit_s: seconds of waiting for a server within which requests are sent. None, for a command that a person waits
            for: a busy server gets more time, and runs deleted in MLflow are restored.
        on_progress: called with the number of logged and of missing records.

    Raises:
        Unreachable: the server does not answer, or the time limit is reached; call again to continue.
        TrackingError: the store cannot be written to.
    """
    cell_ids = storage.recorded(root) if cells is None else cells
    records, problems = _identities(root, cell_ids)
    noted = summary.sweeps(root)
    tags = _sweeps_of_cells(noted)
    deleted = limit_s is not None  # whether deleted runs count as existing
    with connected(root, tracking, limit_s) as store:
        interrupted = runs.close_interrupted(store)
        with store.lock:
            found = _found(store, cells, deleted)
            shown = _compare(store, records, found, tags)
            if cells is None and tracking.name == "local":
                for run in (run for cell_id in found.keys() - set(cell_ids) for run in found[cell_id]):
                    store.client.delete_run(run.id)
        missing = [record for record in records if record.cell_id not in shown]

        def log(record: Identity) -> str:
            """Log a record, and return the reason if that fails, otherwise an empty string."""
            try:
                shown[record.cell_id] = log_once(store, record, tags[record.cell_id])
            except Unreachable:
                raise
            except (TrackingError, OSError, ValueError) as error:  # the last two: an invalid record or raw file
                return f"cell {record.cell_id}: {error}"
            return ""

        at_once = _AT_ONCE if tracking.name == "server" and limit_s is None else 1
        for done, refused in enumerate(_each(log, missing, at_once), start=1):
            problems += [refused] if refused else []
            on_progress(done, len(missing))
        for sweep in noted if sweeps is None else sweeps:
            summary.summarise(store, sweep, noted.get(sweep, []), draw, shown, deleted)
    logged = sum(record.cell_id in shown for record in missing)
    return Synced(store.experiment_id, len(shown), logged, interrupted, tuple(problems))


def _identities(root: str | Path, cells: Sequence[str]) -> tuple[list[Identity], list[str]]:
    """Identities of the records, and the reasons why some cannot be read."""
    found, problems = [], []
    for cell_id in cells:
        try:
            found.append(runs.identity(root, cell_id))
        except OSError as error:
            problems.append(f"{storage.cells_dir(root) / cell_id} cannot be read: {error}")
    return found, problems


def _sweeps_of_cells(noted: Mapping[str, Sequence[str]]) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for sweep, cell_ids in noted.items():
        for cell_id in cell_ids:
            found[cell_id].append(sweep)
    return found


def _found(store: Store, cells: Sequence[str] | None, deleted: bool) -> defaultdict[str, list[Run]]:
    """Existing runs by cell."""
    found: defaultdict[str, list[Run]] = defaultdict(list)
    if cells is None or len(cells) > 1:
        there = runs.search(store, deleted, kind="cell")
    else:
        there = [run for cell_id in cells for run in runs.search(store, deleted, cell_id=cell_id)]
    for run in there:
        found[run.tags.get("quantlab.cell_id", "")].append(run)
    return found


def _compare(
    store: Store, records: Sequence[Identity], found: defaultdict[str, list[Run]], tags: defaultdict[str, list[str]]
) -> dict[str, str]:
    """Cell id → run id of the records that are in MLflow; the sweeps of the cell are added to the run's tag."""
    shown = {}
    for record in records:
        there = found[record.cell_id]
        if kept := runs.settle(store, there, record):
            runs.join(store, kept, tags[record.cell_id])
        kept = kept or next((run for run in there if record.is_shown(run)), None)  # deleted by a person
        if kept is not None:
            shown[record.cell_id] = kept.id
    return shown


def _each(log: Callable[[Identity], str], records: Sequence[Identity], at_once: int) -> Iterator[str]:
    if at_once == 1:
        yield from map(log, records)
        return
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(log, records)
