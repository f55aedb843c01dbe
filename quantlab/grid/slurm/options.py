"""Options of sbatch, derived from a launcher's settings."""

from __future__ import annotations

from quantlab.config.launcher import PREFIX, LauncherConfig
from quantlab.util.errors import ConfigError
from quantlab.util.machine import Site

Option = bool | int | float | str


def site(launcher: LauncherConfig) -> Site:
    """The machine that a job of this launcher will find; the submitting node need not have a GPU."""
    return Site(
        device="cuda" if launcher.gpus_per_node else "cpu",
        threads=launcher.cpus_per_task,
        why_no_device=lambda name: _why_no_device(name, launcher),
        can_change=True,
    )


def _why_no_device(name: str, launcher: LauncherConfig) -> str | None:
    if name == "cuda" and not launcher.gpus_per_node:
        return f"device=cuda: the jobs have no GPU; set hydra/launcher=slurm or {PREFIX}gpus_per_node=1, or device=cpu"
    return "device=mps: SLURM nodes are not Macs; use device=cpu" if name == "mps" else None


def sbatch_options(launcher: LauncherConfig, job_name: str) -> dict[str, Option]:
    """Options of sbatch by their long names, without array, signal and output.

    `additional_parameters` overrides the other keys.
    """
    found: dict[str, Option | None] = {
        "job-name": job_name,
        "partition": launcher.partition,
        "account": launcher.account,
        "qos": launcher.qos,
        "constraint": launcher.constraint,
        "time": launcher.timeout_min,
        "nodes": 1,
        "ntasks-per-node": 1,
        "cpus-per-task": launcher.cpus_per_task,
        "mem": None if launcher.mem_gb is None else f"{round(1024 * launcher.mem_gb)}M",
        "gpus-per-node": _gpus(launcher),
        "requeue": True,
    }
    given = {key.replace("_", "-"): value for key, value in (launcher.additional_parameters or {}).items()}
    _check(given)
    kept = {key: value for key, value in (found | given).items() if value is not None and value is not False}
    return kept


def _gpus(launcher: LauncherConfig) -> str | None:
    if not launcher.gpus_per_node:
        return None
    kind = (launcher.gpu_type or "").removeprefix("gpu:")
    return f"{kind}:{launcher.gpus_per_node}" if kind else str(launcher.gpus_per_node)


def _check(given: dict[str, Option]) -> None:
    """Refuse options that quantlab itself sets."""
    ours = {"array", "job-name", "output", "error", "signal", "open-mode", "time", "cpus-per-task"} & set(given)
    if ours:
        what = ", ".join(sorted(ours))
        raise ConfigError(f"{PREFIX}additional_parameters: {what}: set by quantlab, from its own keys")


def signal_delay_s(timeout_min: int) -> int:
    """Seconds before the time limit at which a job is signalled: a tenth of its time, 10 to 90 s.

    SLURM checks limits twice a minute and may signal a minute early, so with 90 s for all a job of a few minutes
    would be signalled at its start.
    """
    return min(90, max(10, 60 * timeout_min // 10))
