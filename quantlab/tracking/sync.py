"""Synchronisation of a folder's records with MLflow, once each, also from several machines."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.tracking import markers, runs, summary
from quantlab.tracking.errors import TrackingError, Unreachable
from quantlab.tracking.log import log_missing, log_once
from quantlab.tracking.runs import Identity, Run
from quantlab.tracking.store import Store, with_store

_AT_ONCE = 8  # records on their way to a server, which is mostly waiting; a local store takes one at a time
_PART = 10  # records that are logged before others may have the lock of a local store
Plots = Mapping[str, bytes]  # file name → PNG
Draw = Callable[[Sequence[str]], tuple[str, Callable[[], Plots]]]


@dataclass(frozen=True)
class Synced:
    """What `sync` found and did."""

    records: int  # that can be read
    logged: int  # of them; the others were there
    interrupted: int  # runs that were closed, as the process that wrote them is gone
    problems: tuple[str, ...]  # records that cannot be read, or that MLflow refused


@dataclass(frozen=True)
class _Task:
    """A record to log."""

    record: Identity
    found: list[Run]  # of its cell
    created_at: str
    sweep: str  # the value of its tag


def sync(
    root: str | Path,
    tracking: TrackingConfig,
    draw: Draw,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Synced:
    """Make MLflow agree with the records: what is missing is logged, in the order it was measured.

    Also closes the runs that killed processes left, deletes the second run of a record and, in a local store, those of
    cells whose record is gone; a server may show other folders' records. What was found is asked for in one search, so
    that the cost grows with what is missing. Markers are not believed: the store may be another one than it was.

    Args:
        root: the folder of records.
        tracking: where to.
        draw: the ids of a sweep's cells → its table and what draws its plots.
        on_progress: called with how many of how many missing records are done.

    Raises:
        Unreachable: the server does not answer (any more); call again to go on.
        TrackingError: the store cannot be written.
    """
    records, unread = _identities(root)
    interrupted = with_store(root, tracking, runs.close_interrupted)
    missing = with_store(root, tracking, lambda store: _missing(store, root, tracking, records))
    tasks, problems = _tasks(root, missing)
    refused = _bring_all(root, tracking, tasks, on_progress)
    _bring_sweeps(root, tracking, draw)
    return Synced(
        records=len(records) - len(problems),
        logged=len(tasks) - len(refused),
        interrupted=interrupted,
        problems=(*unread, *problems, *refused),
    )


def _identities(root: str | Path) -> tuple[list[Identity], list[str]]:
    """Of every record, and why some cannot be read."""
    found, problems = [], []
    for cell_id in storage.recorded(root):
        try:
            found.append(runs.identity(root, cell_id))
        except OSError as error:
            problems.append(f"{storage.cells_dir(root) / cell_id} cannot be read: {error}")
    return found, problems


def _missing(
    store: Store, root: str | Path, tracking: TrackingConfig, records: Sequence[Identity]
) -> dict[Identity, list[Run]]:
    """The records without a complete run, and what there is of their cells; a second run of a record goes."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs.search(store, kind="cell"):
        found[run.tags["quantlab.cell_id"]].append(run)
    missing = {}
    for record in records:
        marker = markers.cell_marker(root, record.cell_id)
        there = found.pop(record.cell_id, [])
        kept = runs.settle(store, there, record)
        if kept is None:
            markers.forget(marker, tracking)
            missing[record] = there
        else:
            markers.remember(marker, tracking, kept.id)
    if tracking.name == "local":
        for run in (run for orphans in found.values() for run in orphans):
            store.client.delete_run(run.id)
    return missing


def _tasks(root: str | Path, missing: Mapping[Identity, list[Run]]) -> tuple[list[_Task], list[str]]:
    """What is to be logged, oldest first, and why some records cannot be read."""
    problems: list[str] = []
    sweeps = _sweeps_of_cells(root)
    tasks = [
        _Task(record, there, found.created_at, sweeps.get(record.cell_id, found.created_at[:10]))
        for record, there in missing.items()
        for found in storage.readable(root, [record.cell_id], on_unreadable=problems.append)
    ]
    return sorted(tasks, key=lambda task: task.created_at), problems


def _bring_all(
    root: str | Path, tracking: TrackingConfig, tasks: Sequence[_Task], on_progress: Callable[[int, int], None]
) -> list[str]:
    """Log every record; why MLflow refused some."""
    parts = [tasks[begin : begin + _PART] for begin in range(0, len(tasks), _PART)]
    refused: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE if tracking.name == "server" else 1) as pool:
        working = [pool.submit(_bring, root, tracking, part) for part in parts]
        try:
            for done, part in enumerate(as_completed(working), start=1):
                refused += part.result()
                on_progress(min(done * _PART, len(tasks)), len(tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return refused


def _bring(root: str | Path, tracking: TrackingConfig, part: Sequence[_Task]) -> list[str]:
    """Log some records; why MLflow refused some of them."""
    refused = []
    left = list(part)

    def log_all(store: Store) -> None:
        while left:
            _log(store, root, tracking, left[0])
            left.pop(0)

    while left:
        try:
            with_store(root, tracking, log_all)
        except Unreachable:
            raise
        except (TrackingError, OSError, ValueError) as error:  # the last two: its raw files are none
            refused.append(f"cell {left.pop(0).record.cell_id}: {error}")
    return refused


def _log(store: Store, root: str | Path, tracking: TrackingConfig, task: _Task) -> None:
    """Unless another process has done so meanwhile: below the same root it left a marker, elsewhere a run."""
    if store.shared:
        log_once(store, root, tracking, task.record, task.sweep)
    elif not markers.logged_run(markers.cell_marker(root, task.record.cell_id), root, tracking):
        log_missing(store, root, tracking, task.record, task.sweep, task.found)


def _sweeps_of_cells(root: str | Path) -> dict[str, str]:
    """Cell → the sweeps it belongs to, as they stand in its tag."""
    found: dict[str, list[str]] = defaultdict(list)
    for sweep, cell_ids in markers.sweeps(root).items():
        for cell_id in cell_ids:
            found[cell_id].append(sweep)
    return {cell_id: " ".join(sweeps) for cell_id, sweeps in found.items()}


def _bring_sweeps(root: str | Path, tracking: TrackingConfig, draw: Draw) -> None:
    for sweep, cell_ids in markers.sweeps(root).items():
        cells = summary.read(root, cell_ids)
        if cells and not _has_summary(root, tracking, sweep, cells):
            table, plots = draw(cell_ids)
            _bring_sweep(root, tracking, sweep, cells, table, plots())


def _bring_sweep(
    root: str | Path, tracking: TrackingConfig, sweep: str, cells: Sequence[Record], table: str, plots: Plots
) -> None:
    with_store(root, tracking, lambda store: summary.summarise(store, root, tracking, sweep, cells, table, plots))


def _has_summary(root: str | Path, tracking: TrackingConfig, sweep: str, cells: Sequence[Record]) -> bool:
    content = summary.fingerprint(cells)
    found = with_store(
        root, tracking, lambda store: list(runs.search(store, kind="summary", sweep=sweep, content=content))
    )
    return any(run.complete for run in found)
