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

ROOT = Path("/")  # parent of /proc and /sys; replaced in tests
LOOK_S = 0.1  # seconds that `pin` watches the cores: 10 ticks of the kernel's clock
FREE_SHARE = 0.25  # a core less busy than this counts as free: two ticks of ten may be a daemon's wake-up


def usable_cores() -> int:
    """Number of cores this process may use, as limited by `taskset`, a container or SLURM."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_cuda_driver() -> bool:
    """Whether the CUDA driver's library is present; no call is made, so that this process can still be forked."""
    return _cuda_driver() is not None


def _cuda_driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def cuda_devices() -> int:
    """Number of CUDA devices; 0 without a driver."""
    driver = _cuda_driver()
    if driver is None:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_names() -> tuple[str, ...]:
    """The CUDA devices of this process as CUDA_VISIBLE_DEVICES names them: by number, or as it was set outside."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(given or map(str, range(cuda_devices())))[: cuda_devices()]


def has_mps() -> bool:
    """Whether this is a Mac with Apple silicon, whose GPU torch calls mps."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def resolve_device(name: str) -> str:
    """Resolve `auto` to the best device of this machine; other names are unchanged."""
    if name != "auto":
        return name
    if cuda_devices():
        return "cuda"
    return "mps" if has_mps() else "cpu"


@dataclass(frozen=True)
class Site:
    """The machine that runs cells: this one, or one behind a queue."""

    device: str  # meaning of `device=auto` there
    threads: int  # meaning of `device.threads=null` there
    why_no_device: Callable[[str], str | None]  # device name → why it cannot be used there, or None
    gpus: int = 0  # CUDA devices
    can_change: bool = False  # another machine of the cluster may have a device that this one lacks


def here() -> Site:
    """The machine that this process runs on."""
    return Site(resolve_device("auto"), usable_cores(), why_no_device, cuda_devices())


def why_no_device(name: str) -> str | None:
    """Why a device cannot be used here, or None if it can."""
    if name == "cuda" and not cuda_devices():
        return "device=cuda: this machine's driver offers no CUDA device; use device=cpu"
    if name == "mps" and not has_mps():
        return "device=mps: this machine is not a Mac with an Apple processor; use device=cpu"
    return None


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed versions of distributions, without those that are not installed."""
    found = {name: _version(name) for name in distributions}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache
def _version(distribution: str) -> str | None:
    """Installed version, cached: a look-up takes over 1 ms, and every cell of a grid needs ten."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name as the system reports it, e.g. `AMD EPYC 9B45`."""
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
    """Time of one or more cores since boot, in seconds; resolution one tick of the kernel's clock (10 ms)."""

    busy_s: float  # processes and interrupts
    steal_s: float  # ready to run while the hypervisor ran another guest


def core_times(root: Path = ROOT) -> dict[int, CoreTimes]:
    """Times of each core since boot, by core number; empty without /proc/stat (proc(5)).

    psutil returns a list, whose positions differ from core numbers if a core is offline.
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
    """The cores that this process may run on, in order; empty if the system does not support it."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def pin(threads: int) -> tuple[int, ...]:
    """Pin this process to as many cores as it computes with, choosing idle ones.

    A thread that migrates between cores loses its caches, and two threads on hyper-threads of one core share it. The
    idlest cores are chosen instead of the first, so that two measurements on one machine use different cores. They can
    still collide if both choose within the same tenth of a second, and other processes are not kept off:
    `interference.Monitor` reports that.

    All threads of the process are moved, and later ones inherit the setting. Call it before a library creates its
    thread pool, since some size or bind the pool by the available cores.

    Args:
        threads: number of compute threads; nothing changes if there are at least as many as usable cores.

    Returns:
        The cores that the process may now use, in order; empty if the system has no affinity (macOS).
    """
    usable = affinity()
    if threads < len(usable):
        _move(idlest(threads, _loads(usable)))
    return affinity()


def choose_cores(count: int, free: Collection[int], taken: Collection[int], root: Path = ROOT) -> tuple[int, ...]:
    """Choose cores as `pin` does, for a process that runs beside others.

    Args:
        count: number of cores, at most as many as are free.
        free: cores that nobody has been given.
        taken: cores of the others; the halves of their physical cores are left free as long as possible.
        root: parent of /sys.
    """
    shared = {_physical(core, root) for core in taken}
    apart = [core for core in free if _physical(core, root) not in shared]
    among = apart if len(apart) >= count else sorted(free)
    return tuple(sorted(among)) if len(among) == count else idlest(count, _loads(among), root)


def _loads(cores: Collection[int]) -> dict[int, float]:
    """Share of a tenth of a second that each core was busy."""
    before = core_times()
    time.sleep(LOOK_S)
    after = core_times()
    untold = CoreTimes(0.0, 0.0)
    return {core: (after.get(core, untold).busy_s - before.get(core, untold).busy_s) / LOOK_S for core in cores}


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[tuple[int, ...]]:
    """`pin` within the block, and restore all cores after it for the next cell of the process."""
    before = affinity()
    try:
        yield pin(threads)
    finally:
        if before:
            _move(before)


def idlest(count: int, loads: Mapping[int, float], root: Path = ROOT) -> tuple[int, ...]:
    """Choose the cores to compute on.

    Args:
        count: number of cores, fewer than there are.
        loads: usable core → share of time that it was busy.
        root: parent of /sys.

    Returns:
        Cores in order, chosen by these criteria: free; on different physical cores; on one processor if it has enough
        (nearest memory); fastest.
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
    halves: dict[str, list[int]] = {}  # per physical core, the idlest first
    for core in sorted(loads, key=lambda core: (loads[core], core)):
        halves.setdefault(_physical(core, root), []).append(core)

    def rank(core: int) -> tuple[bool, bool, bool, float, float, int]:
        together = halves[_physical(core, root)]
        load = sum(loads[half] for half in together)
        slowness = -(max_frequency_mhz(core, root) or 0.0)
        return loads[core] > FREE_SHARE, core != together[0], load > FREE_SHARE, slowness, load, core

    return sorted(loads, key=rank)


def _physical(core: int, root: Path) -> str:
    """The list of hyper-threads of a core's physical core, which identifies it."""
    return _topology(core, "thread_siblings_list", root) or str(core)


def _topology(core: int, name: str, root: Path) -> str:
    return read_text(root / f"sys/devices/system/cpu/cpu{core}/topology/{name}") or ""


def max_frequency_mhz(core: int, root: Path = ROOT) -> float | None:
    """The maximum frequency of a core; None if not reported, as in a virtual machine."""
    khz = read_text(root / f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq")
    return None if khz is None else int(khz) / 1000


@functools.cache
def is_virtual(root: Path = ROOT) -> bool | None:
    """Whether this is a virtual machine, by the processor's flag; None without such a flag (Arm)."""
    text = read_text(root / "proc/cpuinfo") or ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), None)
    return None if flags is None else "hypervisor" in flags.split()


def read_text(path: Path) -> str | None:
    """Content of a file in /proc or /sys, stripped; None if absent or not readable."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _move(cores: Collection[int]) -> None:
    """Restrict every thread of this process to these cores; failures are ignored, see `affinity`."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended, or a sandbox forbids it
            os.sched_setaffinity(int(thread.name), cores)
