"""A grid on a cluster: plan for its nodes, write the batch, submit it as an array, and wait or not."""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from quantlab.cluster import batch as batches
from quantlab.cluster import script as scripts
from quantlab.cluster import slurm
from quantlab.cluster.batch import Batch
from quantlab.cluster.divide import divide
from quantlab.cluster.job import Task
from quantlab.cluster.options import sbatch_options, signal_delay_s, site
from quantlab.cluster.place import places
from quantlab.cluster.watch import Watch
from quantlab.config import RunConfig
from quantlab.errors import ConfigError
from quantlab.grid import INTERRUPTED, OK, Grid, conclude, open_root, sweep_id
from quantlab.launcher import LauncherConfig
from quantlab.plan import plan
from quantlab.progress import Display
from quantlab.record import Record

if TYPE_CHECKING:
    from submitit import SlurmExecutor

MANY_STARTS = 1000  # after a time limit; submitit's own 3 would leave cells of a long job behind
OWN_KEYS = {"job-name": "job_name", "time": "time", "cpus-per-task": "cpus_per_task"}  # sbatch's name → submitit's


def run_on_slurm(configs: Sequence[RunConfig], launcher: LauncherConfig) -> int:
    """Submit every cell that has no good record and is in no other job; then wait for all, if asked to.

    Returns:
        The exit code: 0, also where nobody waits; 1 if a cell failed; 130 if the waiting was interrupted.

    Raises:
        ConfigError: the launcher's settings, or what sbatch says of them; nothing was submitted then.
    """
    _check_slurm()
    root = Path(configs[0].output_dir)
    cells = plan(configs, site(launcher))
    open_root(root)
    sweep = sweep_id(cells)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a Ctrl-C
    with Display(len(cells)) as display:
        grid = Grid(root, configs[0], display)
        grid.outbox.begin(sweep, [cell.id for cell in cells])
        try:
            with one_at_a_time(root):
                split = divide(cells, grid)
                batch = split.batch(launcher, sweep)
                if batch:
                    display.say(_submit(root, batch))
            if split.elsewhere:
                display.say(f"{len(split.elsewhere)} cells are in jobs of an earlier command, not submitted again")
            found = _by_id(grid.run(split.here, sweep))
            if not launcher.wait:
                display.say(_how_to_look(root))
                return OK
            known = split.places | (places([batch]) if batch else {})
            waiting = {cell.id: cell for cell in [*split.elsewhere, *split.new]}
            found |= Watch(grid, sweep, waiting, known).wait()
            records = [found[cell.id] for cell in cells]
            grid.summarise(records, sweep)
        except KeyboardInterrupt:
            display.say(f"interrupted: jobs that were submitted go on; scancel ends them. {_how_to_look(root)}")
            return INTERRUPTED
    return conclude(records, grid)


def script(configs: Sequence[RunConfig], launcher: LauncherConfig) -> str | None:
    """Write the batch of what is left of a grid, and the script that runs it; None if nothing is.

    Raises:
        ConfigError: the launcher's settings.
    """
    root = Path(configs[0].output_dir)
    cells = plan(configs, site(launcher))
    sweep = sweep_id(cells)
    with Display(len(cells)) as display, one_at_a_time(root):
        grid = Grid(root, configs[0], display)
        grid.outbox.begin(sweep, [cell.id for cell in cells])
        split = divide(cells, grid)
        batch = split.batch(launcher, sweep)
        text = scripts.text(root, batch) if batch else None
        if batch:
            batches.write(root, batch)
        grid.run(split.here, sweep)
        left = len(split.new)
        display.say(f"{left} of {len(cells)} cells in the script, the others are recorded or in jobs already")
        display.say(_how_to_look(root))
    return text


@contextlib.contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Two commands that divide their cells at the same moment submit each once."""
    batches.jobs_dir(root).mkdir(parents=True, exist_ok=True)
    with FileLock(batches.jobs_dir(root) / ".lock"):
        yield


def _check_slurm() -> None:
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ConfigError(
            "hydra/launcher=slurm: no sbatch on this machine; run the command on a login node of the cluster, "
            "or leave the launcher out to run here"
        )


def _submit(root: Path, batch: Batch) -> str:
    """Write the batch, then hand it to SLURM in as few arrays as it takes; what to say of it."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    batches.write(root, batch)
    ids: list[str] = []
    try:
        executor, size = _executor(root, batch), slurm.max_array_size()
        for start in range(0, len(batch.tasks), size):
            numbers = range(start, min(start + size, len(batch.tasks)))
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # what sbatch says is in the error
                jobs = [executor.submit(Task(), str(root.resolve()), batch.id, number) for number in numbers]
            ids += [job.job_id for job in jobs]
            batches.write_json(batches.folder(root, batch.id) / "submitted.json", {"jobs": ids})
    except (FailedJobError, FailedSubmissionError) as error:
        if not ids:
            shutil.rmtree(batches.folder(root, batch.id), ignore_errors=True)
        raise ConfigError(f"sbatch refused the jobs: {_cause(error)}") from None
    arrays = ", ".join(dict.fromkeys(id.partition("_")[0] for id in ids))
    return f"submitted {len(batch.cells)} cells in {len(ids)} jobs of SLURM: {arrays}  (batch {batch.id})"


def _executor(root: Path, batch: Batch) -> SlurmExecutor:
    from submitit import SlurmExecutor

    launcher = batch.launcher
    options = sbatch_options(launcher, batch.job_name)
    executor = SlurmExecutor(batches.slurm_dir(root, batch.id).resolve(), max_num_timeout=MANY_STARTS)
    executor.update_parameters(
        **{theirs: options.pop(ours) for ours, theirs in OWN_KEYS.items()},
        setup=list(launcher.setup),
        array_parallelism=launcher.array_parallelism,
        signal_delay_s=signal_delay_s(launcher.timeout_min),
        stderr_to_stdout=True,
        srun_args=[f"--cpus-per-task={launcher.cpus_per_task}"],  # srun of SLURM 22.05 and later takes one core else
        wckey=None,  # submitit's own, which a cluster that checks them does not know
        additional_parameters=options,
    )
    return executor


def _cause(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return (told or lines or [type(error).__name__])[0]


def _how_to_look(root: Path) -> str:
    return f"look with: python -m quantlab.status --root {shlex.quote(str(root))}"


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    return {record.cell_id: record for record in records}
