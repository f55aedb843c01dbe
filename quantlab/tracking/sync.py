"""All records of a folder → MLflow, once each, in any order and from several machines at the same time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from quantlab import storage
from quantlab.config import TrackingConfig
from quantlab.record import Record
from quantlab.tracking import markers, runs, summary
from quantlab.tracking.errors import TrackingError, Unreachable
from quantlab.tracking.log import log_once
from quantlab.tracking.runs import Identity
from quantlab.tracking.store import Store, connected, opened

_AT_ONCE = 8  # records on their way to a server, which is mostly waiting; a local store takes one at a time
Draw = Callable[[Sequence[str]], tuple[str, Callable[[], Mapping[str, bytes]]]]


@dataclass(frozen=True)
class Synced:
    """What `sync` found and did."""

    records: int  # that can be read
    logged: int  # of them; the others were there
    interrupted: int  # runs that were closed, as the process that wrote them is gone
    problems: tuple[str, ...]  # records that cannot be read, or that MLflow refused


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
    records = [runs.identity(root, cell_id) for cell_id in storage.recorded(root)]
    with opened(root, tracking) as store:
        interrupted = runs.close_interrupted(store)
        missing = _missing(store, root, tracking, records)
    wanted, problems = _readable(root, missing)
    refused = _bring_all(root, tracking, wanted, on_progress)
    _bring_sweeps(root, tracking, draw)
    return Synced(
        records=len(records) - len(problems),
        logged=len(wanted) - len(refused),
        interrupted=interrupted,
        problems=(*problems, *refused),
    )


def _missing(store: Store, root: str | Path, tracking: TrackingConfig, records: Sequence[Identity]) -> list[Identity]:
    """The records without a complete run; what is more than one run of a record goes."""
    found: dict[str, list[runs.Run]] = defaultdict(list)
    for run in runs.search(store, kind="cell"):
        found[run.tags["quantlab.cell_id"]].append(run)
    missing = []
    for record in records:
        kept = runs.settle(store, found.pop(record.cell_id, []), record)
        if kept is None:
            missing.append(record)
        else:
            markers.remember(markers.cell_marker(root, record.cell_id), tracking, kept.id)
    if tracking.name == "local":
        for run in (run for orphans in found.values() for run in orphans):
            store.client.delete_run(run.id)
    return missing


def _readable(root: str | Path, records: Sequence[Identity]) -> tuple[list[Identity], list[str]]:
    """Those that can be read, oldest first, and why the others cannot."""
    problems: list[str] = []
    created = {
        record.cell_id: record.created_at
        for one in records
        for record in storage.readable(root, [one.cell_id], on_unreadable=problems.append)
    }
    usable = [record for record in records if record.cell_id in created]
    return sorted(usable, key=lambda record: created[record.cell_id]), problems


def _bring_all(
    root: str | Path,
    tracking: TrackingConfig,
    records: Sequence[Identity],
    on_progress: Callable[[int, int], None],
) -> list[str]:
    """Log every record; why MLflow refused some."""
    of_cell = _sweeps_of_cells(root)
    refused = []
    with ThreadPoolExecutor(_AT_ONCE if tracking.name == "server" else 1) as pool:
        tasks = [pool.submit(_bring, root, tracking, record, of_cell.get(record.cell_id)) for record in records]
        try:
            for done, task in enumerate(as_completed(tasks), start=1):
                refused += [why] if (why := task.result()) else []
                on_progress(done, len(records))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return refused


def _bring(root: str | Path, tracking: TrackingConfig, record: Identity, sweeps: str | None) -> str | None:
    """Log one record; why not, if MLflow refuses this one."""
    found = storage.read(root, record.cell_id)
    if found is None:
        return f"the record of cell {record.cell_id} has just been deleted"
    try:
        with connected(root, tracking) as store:
            log_once(store, root, tracking, record, sweeps or found.created_at[:10])
    except Unreachable:
        raise
    except TrackingError as error:
        return f"cell {record.cell_id}: {error}"
    return None


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
            drawn = plots()
            with connected(root, tracking) as store:
                summary.summarise(store, root, tracking, sweep, cells, table, drawn)


def _has_summary(root: str | Path, tracking: TrackingConfig, sweep: str, cells: Sequence[Record]) -> bool:
    content = summary.fingerprint(cells)
    with connected(root, tracking) as store:
        found = runs.search(store, kind="summary", sweep=sweep, content=content)
        return any(run.complete for run in found)
