"""Batch script for sbatch, to submit by hand."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from quantlab.config.launcher import PREFIX
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm import slurm
from quantlab.grid.slurm.batch import Batch
from quantlab.grid.slurm.options import Option, sbatch_options, signal_delay_s
from quantlab.util.errors import ConfigError


def text(root: Path, batch: Batch) -> str:
    """Text of the script; each task of its array runs `python -m quantlab.work`.

    Raises:
        ConfigError: more jobs than an array can hold.
    """
    launcher, count = batch.launcher, len(batch.tasks)
    limit = slurm.max_array_size()
    if count > limit:
        enough = -(-len(batch.cells) // limit)
        raise ConfigError(f"{count} jobs, and an array holds {limit}: set {PREFIX}cells_per_job={enough} or more")
    parallel = min(count, launcher.array_parallelism)
    log = batches.slurm_dir(root, batch.id).resolve() / "%A_%a_0_log.out"
    options: dict[str, Option] = sbatch_options(launcher, batch.job_name) | {
        "array": f"0-{count - 1}%{parallel}",
        "output": str(log),
        "open-mode": "append",
        "signal": f"B:USR2@{signal_delay_s(launcher.timeout_min)}",
    }
    work = [sys.executable, "-m", "quantlab.work", "--root", str(root.resolve()), "--batch", batch.id, "--task"]
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {len(batch.cells)} cells of quantlab; submit it with: sbatch FILE",
            *(_directive(name, value) for name, value in options.items()),
            "",
            *launcher.setup,
            "# in place of this shell, so that SLURM's signal before the time limit reaches it",
            f'exec {shlex.join(work)} "$SLURM_ARRAY_TASK_ID"',
            "",
        ]
    )


def _directive(name: str, value: Option) -> str:
    return f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
