"""Script for sbatch that runs tasks of a batch as an array of jobs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm.batch import Batch
from quantlab.grid.slurm.options import Option, sbatch_options, signal_delay_s
from quantlab.util.counted import counted


def text(root: Path, batch: Batch, tasks: range) -> str:
    """Text of the script; each job of its array runs `python -m quantlab.work` for one of these tasks."""
    launcher, cells = batch.launcher, sum(len(batch.tasks[task]) for task in tasks)
    log = batches.slurm_dir(root, batch.id).resolve() / "%A_%a_0_log.out"
    options: dict[str, Option] = sbatch_options(launcher, batch.job_name) | {
        "array": f"0-{len(tasks) - 1}%{min(len(tasks), launcher.array_parallelism)}",
        "output": str(log),
        "open-mode": "append",
        "signal": f"B:USR2@{signal_delay_s(launcher.timeout_min)}",
    }
    work = [sys.executable, "-m", "quantlab.work", "--root", str(root.resolve()), "--batch", batch.id, "--task"]
    index = f"$((SLURM_ARRAY_TASK_ID + {tasks.start}))" if tasks.start else "$SLURM_ARRAY_TASK_ID"
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {counted(cells, 'cell')} of quantlab; submit it with: sbatch FILE",
            *(_directive(name, value) for name, value in options.items()),
            "",
            *launcher.setup,
            "# in place of this shell, so that SLURM's signal before the time limit reaches it",
            f'exec {shlex.join(work)} "{index}"',
            "",
        ]
    )


def _directive(name: str, value: Option) -> str:
    return f"#SBATCH --{name}" if value is True else f"#SBATCH --{name}={shlex.quote(str(value))}"
