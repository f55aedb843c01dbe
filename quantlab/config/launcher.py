"""Settings of the SLURM launcher (`hydra/launcher=slurm`, `slurm_cpu`): strict, frozen, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from quantlab.config.parse import parse
from quantlab.config.part import Part
from quantlab.config.types import Names
from quantlab.util.errors import ConfigError

PREFIX = "hydra.launcher."
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
SLURM = "hydra_plugins.quantlab_launcher.SlurmLauncher"


class LauncherConfig(Part):
    """Settings of one SLURM job array; the YAML in `conf/hydra/launcher/` mirrors it key by key."""

    partition: str | None = None  # null: the cluster's default one
    account: str | None = None
    qos: str | None = None
    timeout_min: int = Field(default=120, gt=0, le=525_600)  # time limit of one job
    mem_gb: float | None = Field(default=16, gt=0, le=1_000_000)  # memory of one job; null: the cluster's default
    cpus_per_task: int = Field(default=8, gt=0, le=4096)  # cores of one job, and what device.threads=null means in it
    gpus_per_node: int = Field(default=0, ge=0, le=64)  # GPUs of one job; a cell uses one
    gpu_type: str | None = None  # e.g. gpu:a100
    constraint: str | None = None  # features of the node
    setup: Names = ()  # shell lines before Python starts: modules, conda
    array_parallelism: int = Field(default=64, gt=0, le=1_000_000)  # jobs that run at the same time
    cells_per_job: int = Field(default=1, gt=0, le=1_000_000)  # cells of one checkpoint that a job measures
    wait: bool = True  # until the last cell is recorded
    additional_parameters: dict[str, bool | int | float | str] | None = None  # more options of sbatch


def parse_launcher(raw: Mapping[str, Any]) -> LauncherConfig | None:
    """Validate the settings under `hydra.launcher`; None means this machine.

    Raises:
        ConfigError: one line per wrong key, or an unknown launcher.
    """
    target = raw.get("_target_")
    if target == BASIC:
        return None
    if target != SLURM:
        raise ConfigError(
            f"hydra/launcher with _target_={target}: quantlab starts the cells itself; allowed: basic (this machine), "
            "slurm, slurm_cpu"
        )
    return parse(LauncherConfig, {key: value for key, value in raw.items() if key != "_target_"}, PREFIX)
