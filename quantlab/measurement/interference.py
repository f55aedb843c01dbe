"""Interference during timing: steal, other load, frequency, throttling.

Counters are read before and after; values without a counter are sampled between the timed calls, never during them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.records.schema import Noise
from quantlab.util import nvml
from quantlab.util.machine import ROOT, CoreTimes, affinity, core_times, is_virtual, read_text

if TYPE_CHECKING:
    import torch

# Thresholds of the flags. protocol.rel_ci is 2 %: a smaller share of the cores cannot explain a ratio.
STEAL_SHARE = 0.02
OTHER_LOAD_SHARE = 0.05  # daemons of an idle desktop take 1 to 3 %
FREQUENCY_RANGE = 0.10  # of the highest; turbo steps of 100 or 200 MHz are normal
RESOLUTION_S = 0.05  # five ticks of the kernel's clock: less CPU time is not significant
SAMPLE_EVERY_S = 0.25  # reading a frequency may interrupt the core, which would slow short batches


class Monitor:
    """Interference between `start` and `read`; call `sample` between the timed calls, never within.

    Args:
        device: the device that computes; on CUDA the GPU is monitored too.
        cores: cores of the timed threads; by default all that this process may use.
        root: parent of /proc and /sys.
    """

    def __init__(self, device: torch.device, cores: Sequence[int] = (), root: Path = ROOT) -> None:
        self._cores = tuple(cores) or affinity()
        self._root = root
        self._gpu = nvml.watch(device) if device.type == "cuda" else None

    def start(self) -> None:
        """Start again from zero."""
        self._frequencies_mhz: list[float] = []
        self._sampled_s = float("-inf")
        self._cgroup = cgroup_throttles(self._root)
        self._thermal = thermal_throttles(self._cores, self._root)
        if self._gpu:
            self._gpu.start()
        self.sample()
        self._own_s = own_cpu_s()
        self._times = total(core_times(self._root), self._cores)
        self._start_s = time.perf_counter()

    def sample(self) -> None:
        """Sample the clocks of the cores and the GPU, unless sampled just before."""
        now_s = time.perf_counter()
        if now_s - self._sampled_s < SAMPLE_EVERY_S:
            return
        self._sampled_s = now_s
        if (frequency := frequency_mhz(self._cores, self._root)) is not None:
            self._frequencies_mhz.append(frequency)
        if self._gpu:
            self._gpu.sample()

    def gpu_process_bytes(self) -> int | None:
        """The peak GPU memory of this process since `start`, as counted by the driver; None without a GPU."""
        return self._gpu.process_bytes() if self._gpu else None

    def read(self) -> Noise:
        """The interference since `start`; may be called repeatedly."""
        elapsed_s = time.perf_counter() - self._start_s
        times, own_s = total(core_times(self._root), self._cores), own_cpu_s()
        self._sampled_s = float("-inf")
        self.sample()
        available_s = elapsed_s * len(self._cores)
        steal_s = other_s = None
        if times is not None and self._times is not None:
            steal_s = times.steal_s - self._times.steal_s
            other_s = times.busy_s - self._times.busy_s - (own_s - self._own_s)
        noise = Noise(
            steal_share=_share(steal_s, available_s),
            other_load_share=_share(other_s, available_s),
            frequency_mhz=_range(self._frequencies_mhz),
            cgroup_throttled=_since(self._cgroup, cgroup_throttles(self._root)),
            thermal_throttled=_since(self._thermal, thermal_throttles(self._cores, self._root)),
            gpu_clock_mhz=self._gpu.clock_mhz if self._gpu else None,
            gpu_throttled=self._gpu.throttled() if self._gpu else (),
        )
        others = self._gpu.other_processes() if self._gpu else 0
        return noise.model_copy(update={"flags": flags(noise, available_s, others)})


def flags(noise: Noise, available_s: float, gpu_processes: int = 0) -> tuple[str, ...]:
    """Warnings for readers of the figures.

    Args:
        noise: the measured interference.
        available_s: core seconds of the interval; shares of a very short interval mean nothing.
        gpu_processes: number of other processes on the GPU.
    """
    found = []
    least = RESOLUTION_S / max(available_s, RESOLUTION_S)
    if (noise.other_load_share or 0.0) > max(OTHER_LOAD_SHARE, least):
        found.append(f"other processes took {100 * (noise.other_load_share or 0.0):.0f} % of the cores")
    if (noise.steal_share or 0.0) > max(STEAL_SHARE, least):
        found.append(f"the hypervisor took {100 * (noise.steal_share or 0.0):.0f} % (steal)")
    found += _varied("core frequency", noise.frequency_mhz)
    if noise.cgroup_throttled:
        found.append(f"throttled {_times(noise.cgroup_throttled)} by the cgroup's CPU quota")
    if noise.thermal_throttled:
        found.append(f"throttled {_times(noise.thermal_throttled)} by the processor's temperature")
    found += _varied("GPU clock", noise.gpu_clock_mhz)
    by_others = [reason for reason in noise.gpu_throttled if reason != nvml.REASONS[nvml.SET_BY_USER]]
    found += [f"GPU clock limited: {reason}" for reason in by_others]
    if gpu_processes:
        found.append(f"{gpu_processes} other process{'es' * (gpu_processes > 1)} on the GPU")
    return tuple(found)


def own_cpu_s() -> float:
    """CPU seconds of this process and all its children, including ended ones."""
    import psutil

    spent = os.times()
    seconds = time.process_time() + spent.children_user + spent.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:  # the child has ended
            continue
        seconds += times.user + times.system + getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
    return seconds


def total(times: dict[int, CoreTimes], cores: Sequence[int]) -> CoreTimes | None:
    """The sum over the cores; None if one of them is unknown."""
    if not cores or not set(cores) <= times.keys():
        return None
    return CoreTimes(sum(times[core].busy_s for core in cores), sum(times[core].steal_s for core in cores))


def frequency_mhz(cores: Sequence[int], root: Path = ROOT) -> float | None:
    """The current frequency of the fastest of these cores; None if unknown.

    The fastest core is the one at work: others may idle between timed calls. In a virtual machine /proc/cpuinfo holds
    a constant, which is not used.
    """
    files = [root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in cores]
    known = [int(text) / 1000 for text in map(read_text, files) if text is not None and text.isdigit()]  # kHz
    if known or is_virtual(root) is not False:
        return max(known, default=None)
    return max(_cpuinfo_mhz(cores, root), default=None)


def _cpuinfo_mhz(cores: Sequence[int], root: Path) -> list[float]:
    """The `cpu MHz` of each core in /proc/cpuinfo."""
    found = []
    for block in (read_text(root / "proc/cpuinfo") or "").split("\n\n"):
        fields = {
            name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())
        }
        text = fields.get("cpu MHz", "")  # the kernel may also write Unknown
        if text.replace(".", "", 1).isdigit() and int(fields.get("processor", -1)) in cores:
            found.append(float(text))
    return found


def cgroup_throttles(root: Path = ROOT) -> int | None:
    """How often the CPU quota of this process's cgroup or its parents throttled it; None without a quota.

    `nr_throttled` in cpu.stat of cgroup v1 and v2 (kernel documentation, scheduler/sched-bwc).
    """
    counts = [_field(stat, "nr_throttled") for folder in _cgroups(root) if (stat := read_text(folder / "cpu.stat"))]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _cgroups(root: Path) -> list[Path]:
    """The visible folders of this process's CPU cgroup and its parents."""
    mounted = root / "sys/fs/cgroup"
    folders = []
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        if not controllers:
            bases = [mounted, mounted / "unified"]
        elif "cpu" in controllers.split(","):
            bases = [mounted / controllers]
        else:
            continue
        folders += [base / part for base in bases for part in (own, *own.parents)]
    return list(dict.fromkeys(folders))


def thermal_throttles(cores: Sequence[int], root: Path = ROOT) -> int | None:
    """Number of thermal throttling events of these cores or their processor since boot; None if unknown."""
    counts: dict[str, int] = {}
    for core in cores:
        folder = root / f"sys/devices/system/cpu/cpu{core}"
        package = read_text(folder / "topology/physical_package_id")  # every core reports the count of its package
        for name, key in (("core", f"core {core}"), ("package", f"package {package}")):
            count = read_text(folder / f"thermal_throttle/{name}_throttle_count")
            if count is not None:
                counts[key] = int(count)
    return sum(counts.values()) if counts else None


def _field(text: str, name: str) -> int | None:
    return next((int(line.split()[1]) for line in text.splitlines() if line.split()[:1] == [name]), None)


def _share(seconds: float | None, available_s: float) -> float | None:
    """A share, clipped to 0 to 1, as two clocks can disagree by some ticks."""
    return None if seconds is None else min(1.0, max(0.0, seconds / available_s))


def _range(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), max(values)) if values else None


def _since(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before


def _varied(what: str, seen_mhz: tuple[float, float] | None) -> list[str]:
    if seen_mhz is None or seen_mhz[0] >= (1 - FREQUENCY_RANGE) * seen_mhz[1]:
        return []
    return [f"{what} varied between {seen_mhz[0] / 1000:.1f} and {seen_mhz[1] / 1000:.1f} GHz"]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
