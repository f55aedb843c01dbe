"""Hardware of this machine (cores, devices, memory), found without importing torch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")  # above /proc and /sys; the tests put trees of their own here
LOOK_S = 0.1  # seconds that `pin` looks at the cores: 10 ticks of the kernel's clock
FREE_SHARE = 0.25  # a core less busy than this is taken as free: two ticks of ten are no more than a daemon's wake-up


def usable_cores() -> int:
    """Cores this process may run on: what `taskset`, a container or SLURM left of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_cuda_driver() -> bool:
    """Whether the driver's library is there; it is asked nothing, so that this process can still be forked."""
    return _cuda_driver() is not None


def _cuda_driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def cuda_devices() -> int:
    """CUDA devices that the driver offers; 0 where there is no driver."""
    driver = _cuda_driver()
    if driver is None:
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


@dataclass(frozen=True)
class Site:
    """Where cells are run: this machine, or one that is reached through a queue."""

    device: str  # what `device=auto` means there
    threads: int  # what `device.threads=null` means there
    why_no_device: Callable[[str], str | None]  # of a device's name: why it cannot be used there, None if it can
    can_change: bool = False  # another of its machines may have the device, so that its lack settles nothing


def here() -> Site:
    """The machine that this process runs on."""
    return Site(resolve_device("auto"), usable_cores(), why_no_device)


def why_no_device(name: str) -> str | None:
    """Why a device cannot be used here, or None if it can."""
    if name == "cuda" and not cuda_devices():
        return "device=cuda: this machine's driver offers no CUDA device; use device=cpu"
    if name == "mps" and not has_mps():
        return "device=mps: this is no Mac with Apple's own processor; use device=cpu"
    return None


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution; those that are not installed are left out."""
    found = {name: _version(name) for name in distributions}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache
def _version(distribution: str) -> str | None:
    """Read once: it takes a millisecond and more, and every cell of a grid asks for ten."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


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


@dataclass(frozen=True)
class CoreTimes:
    """What cores did since boot, seconds, summed over them; resolution one tick of the kernel's clock (10 ms)."""

    busy_s: float  # processes and interrupts
    steal_s: float  # wanted to run, while the hypervisor ran somebody else


def core_times(root: Path = ROOT) -> dict[int, CoreTimes]:
    """What each core did since boot, by its number; empty where the system does not tell (proc(5), /proc/stat).

    psutil has the same figures, but as a list: behind a core that is offline the places are no core numbers.
    """
    try:
        lines = (root / "proc/stat").read_text().splitlines()
    except OSError:
        return {}
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    found = {}
    for line in lines:
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])  # user holds guests' time
            found[int(name[3:])] = CoreTimes((user + nice + system + irq + softirq) * tick_s, steal * tick_s)
    return found


def affinity() -> tuple[int, ...]:
    """The cores that this process may run on, in order; empty where the system does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def pin(threads: int) -> tuple[int, ...]:
    """Keep this process on as many cores as it computes with, the idlest ones.

    A thread that wanders between cores loses its caches, and two threads on the two halves of one core share it. The
    idlest are chosen, and not the first, so that two measurements on one machine do not meet on the same cores. They
    still can when both look within the same tenth of a second, and nobody keeps other processes off:
    `interference.Monitor` tells.

    All threads that the process has are moved, and those it starts later inherit it. Still call it before a library
    makes its thread pool, as some size it, or bind it, by the cores that they find.

    Args:
        threads: how many compute at a time; with as many as there are usable cores, or more, nothing changes.

    Returns:
        The cores that the process may now use, in order; empty where the system has no such thing (macOS).
    """
    usable = affinity()
    if threads < len(usable):
        before = core_times()
        time.sleep(LOOK_S)
        after = core_times()
        untold = CoreTimes(0.0, 0.0)
        spent = {core: after.get(core, untold).busy_s - before.get(core, untold).busy_s for core in usable}
        _move(idlest(threads, {core: busy_s / LOOK_S for core, busy_s in spent.items()}))
    return affinity()


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """`pin` for the length of the block: where the process outlives the cell, the next one finds all cores again."""
    before = affinity()
    try:
        yield pin(threads)
    finally:
        if before:
            _move(before)


def idlest(count: int, loads: Mapping[int, float], root: Path = ROOT) -> tuple[int, ...]:
    """Which cores to compute on.

    Args:
        count: how many, fewer than there are.
        loads: usable core → share of its time that it was busy.
        root: above /sys.

    Returns:
        Cores in order: free ones first of all; then on different physical cores as far as there are, then of one
        processor where it has enough (its memory is nearest), then the fastest.
    """
    packages = {core: _topology(core, "physical_package_id", root) for core in loads}
    ranked = _ranked(loads, root)
    inside = [[core for core in ranked if packages[core] == package] for package in sorted(set(packages.values()))]

    def cost(choice: Iterable[int]) -> tuple[int, int, int, float]:
        cores = list(choice)
        busy = sum(loads[core] > FREE_SHARE for core in cores)
        shared = len(cores) - len({_physical(core, root) for core in cores})
        return busy, shared, len({packages[core] for core in cores}), sum(loads[core] for core in cores)

    choices = [ranked[:count], *(cores[:count] for cores in inside if len(cores) >= count)]
    return tuple(sorted(min(choices, key=cost)))


def _ranked(loads: Mapping[int, float], root: Path) -> list[int]:
    """Cores, best first."""
    halves: dict[str, list[int]] = {}  # of each physical core, the idler first
    for core in sorted(loads, key=lambda core: (loads[core], core)):
        halves.setdefault(_physical(core, root), []).append(core)

    def rank(core: int) -> tuple[bool, bool, bool, float, float, int]:
        together = halves[_physical(core, root)]
        load = sum(loads[half] for half in together)
        slowness = -(max_frequency_mhz(core, root) or 0.0)
        return loads[core] > FREE_SHARE, core != together[0], load > FREE_SHARE, slowness, load, core

    return sorted(loads, key=rank)


def _physical(core: int, root: Path) -> str:
    """What the halves of one physical core have in common: the list of them."""
    return _topology(core, "thread_siblings_list", root) or str(core)


def _topology(core: int, name: str, root: Path) -> str:
    return read_text(root / f"sys/devices/system/cpu/cpu{core}/topology/{name}") or ""


def max_frequency_mhz(core: int, root: Path = ROOT) -> float | None:
    """The highest frequency that a core is made for; None where the system does not tell, as in a virtual machine."""
    khz = read_text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq")
    return None if khz is None else int(khz) / 1000


@functools.cache
def is_virtual(root: Path = ROOT) -> bool | None:
    """Whether a hypervisor runs this machine, by the processor's flag; None where there is no such flag (Arm)."""
    text = read_text(root / "proc/cpuinfo") or ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), None)
    return None if flags is None else "hypervisor" in flags.split()


def read_text(path: Path) -> str | None:
    """A file of /proc or /sys without its line end; None where it is absent or not for us."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _move(cores: Collection[int]) -> None:
    """Let every thread of this process run on these cores alone; where it is forbidden, `affinity` tells."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile, or a sandbox forbids it
            os.sched_setaffinity(int(thread.name), cores)
