"""Exports still missing for cells that were recorded before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from quantlab.export.place import is_there
from quantlab.records.schema import Record


def export_missing(root: Path, records: Sequence[Record], directory: str | None) -> bool:
    """Export, in a process of its own, every good cell that has no folder yet; what it says goes to the terminal.

    Returns:
        Whether all are there; True where none are asked for.
    """
    if directory is None:
        return True
    wanting = [item.cell_id for item in records if item.status == "ok" and not is_there(directory, item.cell_id)]
    if not wanting:
        return True
    command = [sys.executable, "-m", "quantlab.export", "--root", str(root), "--dir", directory, *wanting]
    return subprocess.run(command, check=False).returncode == 0
