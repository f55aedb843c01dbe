"""Submission of a grid: plan cells for the nodes, write the batch, submit an array, wait."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from quantlab.config.launcher import LauncherConfig
from quantlab.config.schema import RunConfig
from quantlab.grid.opponents import Opponents
from quantlab.grid.plan import plan
from quantlab.grid.progress import Display
from quantlab.grid.root import open_root
from quantlab.grid.run import INTERRUPTED, OK, Grid, conclude, sweep_id
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm.array import one_script, submit
from quantlab.grid.slurm.divide import divide
from quantlab.grid.slurm.options import site
from quantlab.grid.slurm.place import places
from quantlab.grid.slurm.watch import JobWatch
from quantlab.records.schema import Record
from quantlab.util.address import VARIABLE, Address, export_address
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError


def run_on_slurm(configs: Sequence[RunConfig], launcher: LauncherConfig) -> int:
    """Submit every cell that has no settled record and is in no other job; then wait for all if configured.

    Returns:
        The exit code: 0, also without waiting; 1 if a cell failed; 130 if the waiting was interrupted.

    Raises:
        ConfigError: the launcher's settings are invalid, or sbatch refuses them; or a baseline is missing
            that cells are compared with while they are measured.
    """
    _check_slurm()
    export_address(configs[0].tracking.uri)
    root = Path(configs[0].output_dir)
    cells = plan(configs, site(launcher))
    open_root(root, configs[0].export.dir)
    sweep = sweep_id(cells)
    with Display(len(cells)) as display:
        grid = Grid(root, configs[0], display)
        grid.background.begin(sweep, [cell.id for cell in cells])
        try:
            with submission_lock(root):
                split = divide(cells, grid)
                Opponents(root, cells, None, display.say).check(split.new)
                batch = split.batch(launcher, sweep)
                if batch:
                    display.say(submit(root, batch))
            if split.elsewhere:
                display.say(
                    f"not submitted again, as in jobs of an earlier command: {counted(len(split.elsewhere), 'cell')}"
                )
            found = _by_id(grid.run(split.here))
            if not launcher.wait:
                grid.background.log(*found)
                display.say(_status_hint(root))
                return OK
            waiting = {cell.id: cell for cell in [*split.elsewhere, *split.new]}
            spots = split.places | (places([batch]) if batch else {})
            found |= JobWatch(grid, waiting, spots).wait()
            records = [found[cell.id] for cell in cells]
            rows = grid.summarise(records)
        except KeyboardInterrupt:
            display.say(f"interrupted: submitted jobs continue; scancel ends them. {_status_hint(root)}")
            return INTERRUPTED
    return conclude(rows, grid)


def script(configs: Sequence[RunConfig], launcher: LauncherConfig) -> str | None:
    """Write the batch of a grid's remaining cells, and the script that runs it; None if there are none.

    Raises:
        ConfigError: the launcher's settings are invalid, or a baseline is missing.
    """
    root = Path(configs[0].output_dir)
    cells = plan(configs, site(launcher))
    sweep = sweep_id(cells)
    with Display(len(cells)) as display, submission_lock(root):
        grid = Grid(root, configs[0], display)
        grid.background.begin(sweep, [cell.id for cell in cells])
        split = divide(cells, grid)
        Opponents(root, cells, None, display.say).check(split.new)
        batch = split.batch(launcher, sweep)
        text = one_script(root, batch) if batch else None
        if batch:
            batches.write(root, batch)
        grid.background.log(*_by_id(grid.run(split.here)))
        if isinstance(uri := configs[0].tracking.uri, Address) and uri.hides:
            display.say(
                f"tracking.uri is stored without its secrets: set {VARIABLE} to all of it where you call sbatch"
            )
        count = f"{len(split.new)} of {counted(len(cells), 'cell')} in the script"
        display.say(f"{count}; the others are recorded or already in jobs")
        display.say(_status_hint(root))
    return text


@contextlib.contextmanager
def submission_lock(root: Path) -> Iterator[None]:
    """Lock for dividing and submitting cells, so that concurrent commands submit each cell only once."""
    batches.jobs_dir(root).mkdir(parents=True, exist_ok=True)
    with FileLock(batches.jobs_dir(root) / ".lock"):
        yield


def _check_slurm() -> None:
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "hydra/launcher=slurm: no sbatch on this machine; run the command on a login node of the cluster, "
            "or leave the launcher out to run here"
        )


def _status_hint(root: Path) -> str:
    return f"to see their state: quantlab status --root {shlex.quote(str(root))}"


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    return {record.cell_id: record for record in records}
