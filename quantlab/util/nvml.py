"""GPU monitoring through NVML: clocks, throttling, memory, other processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

IDLE = 0x1  # clocks are low because there is no work: not a limit
SET_BY_USER = 0x2  # deliberate, usually for steady timings
# NVML API reference, clocks event reasons; unknown reasons are reported by number.
REASONS = {
    SET_BY_USER: "clocks set by the user",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
# NVML API reference, nvmlPerfPolicyType_t: nanoseconds below the application clocks, counted by the driver.
POLICIES = {0: "power cap", 1: "heat", 3: "board limit"}


def nvml() -> ModuleType | None:
    """The initialised NVML bindings; None without an NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def driver_version() -> str | None:
    library = nvml()
    return library.nvmlSystemGetDriverVersion() if library else None


def watch(device: torch.device) -> GpuMonitor | None:
    """A monitor of the GPU behind a CUDA device; None if NVML does not know it."""
    import torch

    library = nvml()
    if library is None:
        return None
    uuid = torch.cuda.get_device_properties(device).uuid  # indices differ between CUDA and NVML: CUDA_VISIBLE_DEVICES
    try:
        return GpuMonitor(library, library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
    except library.NVMLError:
        return None


class GpuMonitor:
    """Clock, throttling, memory and other processes of a GPU since `start`.

    Args:
        library: the pynvml module.
        handle: pynvml's handle of the GPU.
    """

    def __init__(self, library: ModuleType, handle: Any) -> None:
        self._nvml = library
        self._handle = handle
        self.start()

    def start(self) -> None:
        """Start again from zero."""
        self._clocks_mhz: list[int] = []  # under work
        self._resting_mhz: list[int] = []
        self._reasons = 0
        self._limited_ns = self._limits_ns()
        self._most_bytes: int | None = None

    def sample(self) -> None:
        """Sample the SM clock, its limits, and the memory of this process."""
        self.process_bytes()
        reasons = self._ask(self._nvml.nvmlDeviceGetCurrentClocksEventReasons)
        if reasons is None:  # the name in drivers before 535
            reasons = self._ask(self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0
        self._reasons |= reasons
        clock_mhz = self._ask(self._nvml.nvmlDeviceGetClockInfo, self._nvml.NVML_CLOCK_SM)
        if clock_mhz is not None:
            (self._resting_mhz if reasons & IDLE else self._clocks_mhz).append(clock_mhz)

    @property
    def clock_mhz(self) -> tuple[float, float] | None:
        """Lowest and highest sampled SM clock; under load only, if the GPU was sampled under load."""
        seen = self._clocks_mhz or self._resting_mhz
        return (min(seen), max(seen)) if seen else None

    def throttled(self) -> tuple[str, ...]:
        """Reasons that limited the clock since `start`, from samples and the driver's counters."""
        return tuple(dict.fromkeys([*words(self._reasons), *self._counted()]))

    def _counted(self) -> list[str]:
        """Limits found by the driver's counters; samples can miss them, as they are taken between timed calls."""
        now_ns = self._limits_ns()
        return [POLICIES[policy] for policy, before in self._limited_ns.items() if now_ns.get(policy, before) > before]

    def _limits_ns(self) -> dict[int, int]:
        asked = {policy: self._ask(self._nvml.nvmlDeviceGetViolationStatus, policy) for policy in POLICIES}
        return {policy: status.violationTime for policy, status in asked.items() if status is not None}

    def other_processes(self) -> int:
        """Number of other compute processes on the GPU; ours is not looked up, since a container has its own ids."""
        return max(0, len(self._processes()) - 1)

    def process_bytes(self) -> int | None:
        """The most GPU memory of this process sampled since `start`, including now.

        Includes all allocations and CUDA's context. None if the driver does not show which process is ours.
        """
        found = self._processes()
        ours = [process for process in found if process.pid == os.getpid()] or found
        if len(ours) == 1 and ours[0].usedGpuMemory is not None:
            self._most_bytes = max(self._most_bytes or 0, ours[0].usedGpuMemory)
        return self._most_bytes

    def _processes(self) -> list[Any]:
        return list(self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses) or ())

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """Call NVML; None if this GPU or its driver does not support the query."""
        try:
            return question(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def words(reasons: int) -> list[str]:
    """The clocks event reasons in a bit mask, without idle."""
    bits = [1 << place for place in range(reasons.bit_length()) if reasons & 1 << place]
    return [REASONS.get(bit, f"reason {bit:#x}") for bit in bits if bit != IDLE]
