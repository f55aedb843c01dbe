"""Where a cell was measured: enough to tell whether two records may be compared, and to set the place up again."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from quantlab.config import RunConfig
from quantlab.identity import library_versions
from quantlab.machine import memory_bytes, processor, usable_cores


def describe(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """Versions, machine and threads as they are now, in the process that measures."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": library_versions(config),
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "usable_cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "device": str(device),
        **(_cuda(device) if device.type == "cuda" else {}),
        "commit": _commit(),
    }


def _cuda(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _commit() -> str | None:
    """The commit of the checkout that runs, marked if it was changed; None for an installed wheel."""
    package = Path(__file__).parent
    if not (package.parent / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
