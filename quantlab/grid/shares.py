"""Shares of this machine: the cores and the GPU that a running cell has for itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from quantlab.util.machine import choose_cores

Choose = Callable[[int, Collection[int], Collection[int]], tuple[int, ...]]  # count, free and taken cores → cores


@dataclass(frozen=True)
class Share:
    """What a cell has of the machine while it runs beside others."""

    cores: tuple[int, ...]
    gpu: str | None = None  # as CUDA_VISIBLE_DEVICES names it; None: the cell needs none

    def enter(self) -> None:
        """Restrict this process to its share; before a library starts threads or calls CUDA."""
        os.sched_setaffinity(0, self.cores)
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu


class Shares:
    """The cores and GPUs of this machine, handed out to cells that run at the same time.

    Args:
        cores: which this process may use.
        gpus: names of the CUDA devices.
        choose: chooses among the free cores.
    """

    def __init__(self, cores: Sequence[int], gpus: Sequence[str], choose: Choose = choose_cores) -> None:
        self._cores, self._gpus = tuple(cores), tuple(gpus)
        self._choose = choose
        self._given: list[Share] = []

    def take(self, device: str, threads: int) -> Share | None:
        """As many cores as a cell has threads, and a GPU if it runs on one; None if too few are free."""
        taken = {core for share in self._given for core in share.cores}
        used = {share.gpu for share in self._given}
        free = [core for core in self._cores if core not in taken]
        gpu = next((name for name in self._gpus if name not in used), None) if device == "cuda" else None
        if len(free) < threads or (device == "cuda" and gpu is None):
            return None
        share = Share(self._choose(threads, free, taken), gpu)
        self._given.append(share)
        return share

    def give_back(self, share: Share) -> None:
        """The cell has ended."""
        self._given.remove(share)
