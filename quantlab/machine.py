"""What this machine is and has, found without importing torch: the parent process never needs it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path


def usable_cores() -> int:
    """Cores this process may run on: what `taskset`, a container or SLURM left of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cuda_devices() -> int:
    """CUDA devices that the driver offers; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def has_mps() -> bool:
    """Whether this is a Mac with Apple's own processor, whose GPU torch calls mps."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def resolve_device(name: str) -> str:
    """`auto` → the best device of this machine; any other name stays."""
    if name != "auto":
        return name
    if cuda_devices():
        return "cuda"
    return "mps" if has_mps() else "cpu"


def why_no_device(name: str) -> str | None:
    """Why a device cannot be used here, or None if it can."""
    if name == "cuda" and not cuda_devices():
        return "device=cuda: this machine's driver offers no CUDA device; use device=cpu"
    if name == "mps" and not has_mps():
        return "device=mps: this is no Mac with Apple's own processor; use device=cpu"
    return None


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution; those that are not installed are left out."""
    found = {}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name as the system tells it, e.g. `AMD EPYC 9B45`."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def memory_bytes() -> int:
    """Physical memory of the machine, bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
