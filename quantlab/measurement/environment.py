"""Environment of a measurement: hardware, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info

from quantlab.config.schema import RunConfig
from quantlab.recogniser.fingerprints import library_versions
from quantlab.records.schema import to_json
from quantlab.util import nvml
from quantlab.util.machine import (
    ROOT,
    affinity,
    is_virtual,
    max_frequency_mhz,
    memory_bytes,
    processor,
    read_text,
    usable_cores,
)
from quantlab.util.resources import PACKAGE

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def describe(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """The current versions, machine and threads of the measuring process.

    Call it after the libraries are loaded, as each creates a thread pool, and before timing, which would raise the
    load average.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": library_versions(config),
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "usable_cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "virtual_machine": is_virtual(),
        **_frequency(affinity()),
        "load_average": [round(load, 2) for load in os.getloadavg()],  # over 1, 5 and 15 minutes
        "affinity": list(affinity()),  # cores; empty if unknown
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "thread_pools": _thread_pools(),
        "thread_variables": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "device": str(device),
        **(_cuda(device) if device.type == "cuda" else {}),
        "commit": _commit(),
    }


def _frequency(cores: tuple[int, ...], root: Path = ROOT) -> dict[str, Any]:
    """Frequency limits and governor of the cores, if they agree; None if unknown."""
    governors = {read_text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor") for core in cores}
    told_mhz = [mhz for core in cores if (mhz := max_frequency_mhz(core, root)) is not None]
    return {
        "governor": ", ".join(sorted(name for name in governors if name)) or None,
        "max_frequency_mhz": max(told_mhz, default=None),
    }


def _thread_pools() -> list[dict[str, Any]]:
    """The thread pool of each native library, without file paths; sorted, as the order varies."""
    kept = ("user_api", "internal_api", "version", "num_threads")
    return sorted(({key: pool.get(key) for key in kept} for pool in threadpool_info()), key=to_json)


def _cuda(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "gpu_driver": nvml.driver_version(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _commit() -> str | None:
    """The commit of this checkout, marked if it has changes; None for an installed wheel."""
    if not (PACKAGE.parent / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
