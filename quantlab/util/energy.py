"""Energy of a timed region in joules, from the hardware counters found by zeus (extra `energy`).

Zeus finds the counters: RAPL zones in /sys/class/powercap, and NVML's for CUDA devices. Its `ZeusMonitor` is not
used because it would disturb the measurement: it imports pandas and scikit-learn, and for RAPL it starts a process
that polls for wrap-arounds, which imports the user's script again and outlives a cell that ends by `os._exit`. Here
counters are read together with the clock, and wrap at most once between two readings.
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
    """A counter of the energy used since some moment in the past."""

    name: str
    read_j: Callable[[], float]
    range_j: float | None = None  # value at which it wraps to 0; None if never


class Meter:
    """Total energy of all regions between `start` and `stop`: of the GPU on CUDA, else of processor and memory.

    A RAPL counter wraps after 65 to 262 kJ, which is minutes under full load: call `sample` during longer regions.
    RAPL covers the whole processor, including other processes: see the record's noise.

    Args:
        device: the device that computes. Create the meter before timing starts: the import takes about 0.1 s.
    """

    def __init__(self, device: torch.device) -> None:
        self._counters = counters(device)
        self._used_j = 0.0
        self._last_j: list[float] | None = None  # None while stopped
        self._stopped = False

    def start(self) -> None:
        """Start a region; the caller has synchronised the device."""
        self._last_j = self._read_j()

    def sample(self) -> None:
        """Add the energy used so far, before a counter can wrap twice."""
        if self._last_j is None:
            return
        now_j = self._read_j()
        for counter, before_j, after_j in zip(
            self._counters, self._last_j, now_j, strict=False
        ):  # none after a failure
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
        """Joules of all regions; None without a readable counter, or before the first `stop`."""
        return self._used_j if self._counters and self._stopped else None

    @property
    def source(self) -> str | None:
        """Names of the counters, e.g. `RAPL package-0, RAPL dram`."""
        return ", ".join(counter.name for counter in self._counters) or None

    def _read_j(self) -> list[float]:
        """Read all counters; if one fails all are dropped, since a partial sum would be wrong."""
        try:
            return [counter.read_j() for counter in self._counters]
        except _errors():
            self._counters = []
            return []


def counters(device: torch.device) -> list[Counter]:
    """The counters of a device; empty if zeus is not installed or no counter is readable."""
    find = {"cuda": _nvml, "cpu": _rapl}.get(device.type)
    try:
        return find(device) if find else []
    except ImportError:
        return []
    except _errors():
        return []


def _nvml(device: torch.device) -> list[Counter]:
    """The GPU's energy counter (Volta and later), which is updated about ten times a second."""
    from zeus.device import get_gpus

    gpus, index = get_gpus(), device.index or 0
    if not gpus.supports_get_total_energy_consumption(index):
        return []
    return [Counter("NVML", lambda: gpus.get_total_energy_consumption(index) / MILLI)]


def _rapl(device: torch.device) -> list[Counter]:
    """RAPL counters of each processor and its memory. Not `psys`, which includes them; not zeus's daemon."""
    from zeus.device.cpu import rapl

    cpus = [cpu for cpu in rapl.RAPLCPUs().cpus if not isinstance(cpu, rapl.ZeusdRAPLCPU)]
    packages = [cpu for cpu in cpus if cpu.rapl_file.name.startswith("package")]
    return [_zone(part) for cpu in packages for part in (cpu.rapl_file, cpu.dram) if part is not None]


def _zone(zone: RAPLFile) -> Counter:
    def read_j() -> float:
        return type(zone)(zone.path).last_energy / MICRO  # its `read` would start the polling process

    return Counter(f"RAPL {zone.name}", read_j, zone.max_energy_range_uj / MICRO)


def _errors() -> tuple[type[Exception], ...]:
    """Exceptions raised by a missing or unreadable counter."""
    from zeus.exception import ZeusBaseError

    return ZeusBaseError, OSError, ValueError
