"""Grouping of cells into jobs."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.grid.slurm.batch import Planned


def tasks(cells: Sequence[Planned], cells_per_job: int) -> list[list[str]]:
    """Cell ids grouped into jobs.

    Cells of one job share a checkpoint, which the node then reads once; within a job, cells of one corpus are
    adjacent. Otherwise the order of the grid is kept.
    """
    shared: dict[str, dict[str, list[str]]] = {}  # checkpoint → corpus → ids
    for cell in cells:
        corpora = shared.setdefault(cell.fingerprints.get("checkpoint", ""), {})
        corpora.setdefault(cell.fingerprints.get("corpus", ""), []).append(cell.id)
    found = []
    for corpora in shared.values():
        ids = [id for group in corpora.values() for id in group]
        found += [ids[start : start + cells_per_job] for start in range(0, len(ids), cells_per_job)]
    return found
