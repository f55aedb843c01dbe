"""Energy of a timed region in joules, read with zeus (extra `energy`) from the machine's own counters.

Zeus finds the counters: RAPL's zones below /sys/class/powercap, NVML's behind CUDA's numbering of the GPUs. Its
`ZeusMonitor` is not used, as it costs what we came to measure: it imports pandas and scikit-learn, and its reading of
RAPL starts a process that polls for wrap-arounds, which imports the user's script again and outlives a cell that
ends by `os._exit`. A counter is read here when the clock is, and wraps at most once between two readings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from zeus.device.cpu.rapl import RAPLFile

MILLI = 1e3  # mJ in a J
MICRO = 1e6  # µJ in a J


@dataclass(frozen=True)
class Counter:
    """Energy used since some moment in the past."""

    name: str
    read_j: Callable[[], float]
    range_j: float | None = None  # where it begins again at 0; None if never


class Meter:
    """Adds up the energy between each `start` and `stop`, of the GPU on CUDA, else of the processor and its memory.

    A RAPL counter wraps after 65 to 262 kJ, minutes under full load: call `sample` in between where a region is
    longer. Of the whole processor, whoever uses it: see the record's noise.

    Args:
        device: what computes. Make the meter before the clock runs: the import takes some 0.1 s.
    """

    def __init__(self, device: torch.device) -> None:
        self._counters = counters(device)
        self._used_j = 0.0
        self._last_j: list[float] | None = None  # null while it does not run
        self._stopped = False

    def start(self) -> None:
        """Begin a region; the caller has synchronised the device."""
        self._last_j = self._read_j()

    def sample(self) -> None:
        """Take up what was used until now, before a counter can wrap twice."""
        if self._last_j is None:
            return
        now_j = self._read_j()
        for counter, before_j, after_j in zip(self._counters, self._last_j, now_j, strict=False):  # none, if one failed
            wrapped_j = (counter.range_j or 0.0) if after_j < before_j else 0.0
            self._used_j += after_j - before_j + wrapped_j
        self._last_j = now_j

    def stop(self) -> None:
        """End the region."""
        self.sample()
        self._last_j = None
        self._stopped = True

    @property
    def energy_j(self) -> float | None:
        """Joules of all regions; None where the machine has no counter for us, or before the first `stop`."""
        return self._used_j if self._counters and self._stopped else None

    @property
    def source(self) -> str | None:
        """What was read, e.g. `RAPL package-0, RAPL dram`."""
        return ", ".join(counter.name for counter in self._counters) or None

    def _read_j(self) -> list[float]:
        """All counters now; a sum without one of them would be none, so all are given up when one fails."""
        try:
            return [counter.read_j() for counter in self._counters]
        except _errors():
            self._counters = []
            return []


def counters(device: torch.device) -> list[Counter]:
    """The counters of what computes; none where zeus is not installed, or the machine has none that we may read."""
    find = {"cuda": _nvml, "cpu": _rapl}.get(device.type)
    try:
        return find(device) if find else []
    except ImportError:
        return []
    except _errors():
        return []


def _nvml(device: torch.device) -> list[Counter]:
    """The GPU's own counter, which Volta and what came after have; it moves some ten times a second."""
    from zeus.device import get_gpus

    gpus, index = get_gpus(), device.index or 0
    if not gpus.supports_get_total_energy_consumption(index):
        return []
    return [Counter("NVML", lambda: gpus.get_total_energy_consumption(index) / MILLI)]


def _rapl(device: torch.device) -> list[Counter]:
    """Each processor and its memory. Not `psys`, the whole machine, which has them in it; not zeus's daemon."""
    from zeus.device.cpu import rapl

    cpus = [cpu for cpu in rapl.RAPLCPUs().cpus if not isinstance(cpu, rapl.ZeusdRAPLCPU)]
    packages = [cpu for cpu in cpus if cpu.rapl_file.name.startswith("package")]
    return [_zone(part) for cpu in packages for part in (cpu.rapl_file, cpu.dram) if part is not None]


def _zone(zone: RAPLFile) -> Counter:
    def read_j() -> float:
        return type(zone)(zone.path).last_energy / MICRO  # its `read` is what starts the process

    return Counter(f"RAPL {zone.name}", read_j, zone.max_energy_range_uj / MICRO)


def _errors() -> tuple[type[Exception], ...]:
    """What a counter that is not there, or not for us, makes of itself."""
    from zeus.exception import ZeusBaseError

    return ZeusBaseError, OSError, ValueError
