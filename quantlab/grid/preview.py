"""Preview of a grid: its cells with ids, and whether each is recorded or unsupported. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantlab.config.launcher import LauncherConfig
from quantlab.config.schema import RunConfig
from quantlab.grid.plan import Cell, plan
from quantlab.grid.root import check_root
from quantlab.grid.run import SETTLED
from quantlab.grid.slurm.options import site
from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.util.counted import counted

MEASURED = "would be measured"


def preview(configs: Sequence[RunConfig], launcher: LauncherConfig | None = None) -> list[str]:
    """One line per cell, in the order of the grid: id, label and what would be done.

    Args:
        configs: the cells; they share output_dir and resume.
        launcher: launcher of the jobs; None: this machine.

    Raises:
        ConfigError: as `quantlab.grid.run.run_grid`, before the first cell.
    """
    check_root(Path(configs[0].output_dir), configs[0].export.dir)
    cells = plan(configs, None if launcher is None else site(launcher))
    found = storage.readable(configs[0].output_dir, [cell.id for cell in cells], on_unreadable=lambda why: None)
    recorded = {record.cell_id: record for record in found} if configs[0].resume else {}
    actions = [_planned_action(cell, recorded.get(cell.id)) for cell in cells]
    count = sum(line.startswith(MEASURED) for line in actions)
    width = max(len(cell.label) for cell in cells)
    lines = [f"{cell.id}  {cell.label:{width}}  {line}" for cell, line in zip(cells, actions, strict=True)]
    return [*lines, f"{count} of {counted(len(cells), 'cell')} would be measured, in {configs[0].output_dir}"]


def _planned_action(cell: Cell, record: Record | None) -> str:
    if record is not None and record.status in SETTLED:
        return f"recorded: {record.status}"
    if cell.refusal is not None:
        return f"{cell.refusal.status}: {cell.refusal.reason}"
    return MEASURED if record is None else f"{MEASURED} again: {record.status} before"
