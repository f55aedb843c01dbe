"""Submission of a batch as job arrays, each with the script that `quantlab sbatch` prints."""

from __future__ import annotations

import shutil
from pathlib import Path

from quantlab.config.launcher import PREFIX
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm import script as scripts
from quantlab.grid.slurm import slurm
from quantlab.grid.slurm.batch import Batch
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError


def submit(root: Path, batch: Batch) -> str:
    """Write the batch and submit it in as few arrays as possible.

    Returns:
        A message on what was submitted.

    Raises:
        ConfigError: the launcher's settings are invalid, or sbatch refuses them.
    """
    size, count = slurm.max_array_size(), len(batch.tasks)
    ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
    texts = [scripts.text(root, batch, tasks) for tasks in ranges]
    batches.write(root, batch)
    arrays: list[str] = []
    ids: list[str] = []
    for tasks, text in zip(ranges, texts, strict=True):
        try:
            arrays.append(slurm.submit(text))
        except slurm.RefusedError as refusal:
            if ids:
                raise ConfigError(f"sbatch took {len(ids)} of {count} jobs, then: {refusal}") from None
            shutil.rmtree(batches.folder(root, batch.id), ignore_errors=True)
            raise ConfigError(f"sbatch refused the jobs: {refusal}") from None
        ids += [f"{arrays[-1]}_{index}" for index in range(len(tasks))]
        batches.write_json(batches.folder(root, batch.id) / "submitted.json", {"jobs": ids})
    what = f"{counted(len(batch.cells), 'cell')} in {counted(count, 'job')}"
    return f"submitted {what} of SLURM: {', '.join(arrays)}  (batch {batch.id})"


def one_script(root: Path, batch: Batch) -> str:
    """Script with all tasks of a batch, to submit by hand.

    Raises:
        ConfigError: more jobs than an array can hold.
    """
    size, count = slurm.max_array_size(), len(batch.tasks)
    if count > size:
        enough = -(-len(batch.cells) // size)
        raise ConfigError(f"{count} jobs, and an array holds {size}: set {PREFIX}cells_per_job={enough} or more")
    return scripts.text(root, batch, range(count))
