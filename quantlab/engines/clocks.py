"""Stopwatches, thread settings and memory of the measuring process."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from quantlab.records.schema import Stages

KIB = 1024  # bytes


class Stopwatch:
    """Wall seconds, with the device synchronised before each reading of the clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of the block, even if it raises."""
        synchronise(self.device)
        start = time.perf_counter()
        try:
            yield
            synchronise(self.device)
        finally:
            self.seconds += time.perf_counter() - start


class Clocks:
    """Wall seconds of a cell's stages outside the timed region; `progress` is told when one begins."""

    def __init__(
        self, device: torch.device, progress: Callable[[str, int, int], None] = lambda stage, done, total: None
    ) -> None:
        self._device = device
        self.progress = progress
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage `name`; stages may be nested."""
        self.progress(name, 0, 0)
        watch = Stopwatch(self._device)
        try:
            with watch.running():
                yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + watch.seconds

    def stages(self, measure_s: float, word_times_s: float | None = None) -> Stages:
        """The times without overlap: what runs within quantization is subtracted from it."""
        seconds = self._seconds
        within = sum(seconds.get(stage, 0.0) for stage in ("calibrate", "compile", "recover"))
        return Stages(
            load_s=seconds["load"],
            features_s=seconds["features"],
            quantize_s=seconds["quantize"] - within,
            calibrate_s=seconds.get("calibrate"),
            compile_s=seconds.get("compile"),
            recover_s=seconds.get("recover"),
            first_inference_s=seconds.get("first inference"),
            warmup_s=seconds["warm up"],
            measure_s=measure_s,
            word_times_s=word_times_s,
        )


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its queue; a CPU has none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def use_threads(count: int) -> None:
    """Set torch to `count` intra-op threads and one inter-op thread, as a decoder has no parallel branches."""
    torch.set_num_threads(count)
    with contextlib.suppress(RuntimeError):  # fails in a notebook that already used torch; the record shows it
        torch.set_num_interop_threads(1)


class Memory:
    """Peak memory between `reset` and `read`: the allocator's on CUDA, else the resident set of this process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_bytes: int | None = None
        self.reserved_bytes: int | None = None  # reserved by CUDA's caching allocator

    def reset(self) -> None:
        """Reset the peak; where the system cannot, the peak covers the whole process lifetime."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif sys.platform == "linux":
            with contextlib.suppress(OSError):  # a sandbox may forbid it
                Path("/proc/self/clear_refs").write_text("5")  # proc(5): VmHWM falls to the current size

    def read(self) -> None:
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)
            self.reserved_bytes = torch.cuda.max_memory_reserved(self.device)
        elif sys.platform == "linux":
            status = Path("/proc/self/status").read_text()
            self.peak_bytes = int(status.split("VmHWM:")[1].split()[0]) * KIB
        else:
            self.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
