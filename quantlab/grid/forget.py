"""Removal of cells from a folder: record, log, and what says that they were started."""

from __future__ import annotations

import contextlib
from pathlib import Path

from quantlab.grid.claims import claimed
from quantlab.grid.slurm import batch as batches
from quantlab.records import storage


def forget(root: Path, cell_id: str) -> bool:
    """Remove a cell; False if a process is measuring it."""
    with claimed(root, cell_id) as mine:
        if not mine:
            return False
        storage.remove(root, cell_id)
        with contextlib.suppress(OSError):
            (root / "logs" / f"{cell_id}.log").unlink()
        for batch in batches.read_all(root):
            if any(cell.id == cell_id for cell in batch.cells):
                mark = batches.forgotten_file(root, batch.id, cell_id)
                mark.parent.mkdir(exist_ok=True)
                mark.touch()
    return True
