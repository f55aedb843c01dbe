"""Export of recorded cells that have no intact exported folder yet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from quantlab.export.place import is_whole
from quantlab.records.schema import Record


def export_missing(root: Path, records: Sequence[Record], directory: str | None) -> bool:
    """Export every measured cell that has no folder yet, in a separate process that prints to the terminal.

    A folder that is not as it was written is reported, not replaced.

    Returns:
        Whether all exports exist; True if `directory` is None.
    """
    if directory is None:
        return True
    wanting = [item.cell_id for item in records if item.status == "ok" and not is_whole(directory, item.cell_id)]
    if not wanting:
        return True
    command = [sys.executable, "-m", "quantlab.export", "--root", str(root), "--dir", directory, *wanting]
    return subprocess.run(command, check=False).returncode == 0
