"""Submission of a batch as job arrays, through submitit."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm import slurm
from quantlab.grid.slurm.batch import Batch
from quantlab.grid.slurm.job import Task
from quantlab.grid.slurm.options import sbatch_options, signal_delay_s
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError

if TYPE_CHECKING:
    from submitit import SlurmExecutor

MANY_STARTS = 1000  # restarts after a time limit; submitit's default of 3 would abandon cells of a long job
OWN_KEYS = {"job-name": "job_name", "time": "time", "cpus-per-task": "cpus_per_task"}  # sbatch's name → submitit's


def submit(root: Path, batch: Batch) -> str:
    """Write the batch and submit it in as few arrays as possible.

    Returns:
        A message on what was submitted.

    Raises:
        ConfigError: the launcher's settings are invalid, or sbatch refuses them.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor, size = _executor(root, batch), slurm.max_array_size()
    batches.write(root, batch)
    ids: list[str] = []
    try:
        for start in range(0, len(batch.tasks), size):
            numbers = range(start, min(start + size, len(batch.tasks)))
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # sbatch's message is in the error
                jobs = [executor.submit(Task(), str(root.resolve()), batch.id, number) for number in numbers]
            ids += [job.job_id for job in jobs]
            batches.write_json(batches.folder(root, batch.id) / "submitted.json", {"jobs": ids})
    except (FailedJobError, FailedSubmissionError) as error:
        if ids:
            raise ConfigError(f"sbatch took {len(ids)} of {len(batch.tasks)} jobs, then: {_cause(error)}") from None
        shutil.rmtree(batches.folder(root, batch.id), ignore_errors=True)
        raise ConfigError(f"sbatch refused the jobs: {_cause(error)}") from None
    arrays = ", ".join(dict.fromkeys(id.partition("_")[0] for id in ids))
    what = f"{counted(len(batch.cells), 'cell')} in {counted(len(ids), 'job')}"
    return f"submitted {what} of SLURM: {arrays}  (batch {batch.id})"


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
        srun_args=[f"--cpus-per-task={launcher.cpus_per_task}"],  # else srun of SLURM 22.05 and later uses one core
        wckey=None,  # not submitit's default, which clusters that check wckeys refuse
        additional_parameters=options,
    )
    return executor


def _cause(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return (errors or lines or [type(error).__name__])[0]
