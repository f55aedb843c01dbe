"""Memory of cells that run side by side: what another one will need, and what is left for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from quantlab import models
from quantlab.config.schema import ModelConfig
from quantlab.grid.plan import Cell
from quantlab.util.errors import Unavailable
from quantlab.util.machine import ROOT, read_text

FP32_BYTES = 4  # of a parameter
COPIES = 3  # of the weights in fp32: as loaded, quantized, and what is computed with them
LIBRARIES_BYTES = 1 << 30  # a cell of the shipped model, which has 17 MB of weights, takes 0.6 to 0.9 GB


class Memory:
    """Decides whether a cell may start beside others.

    Args:
        available: bytes that this process and its children may still allocate.
    """

    def __init__(self, available: Callable[[], int] | None = None) -> None:
        self._available = available or available_bytes
        self._seen: dict[str, int] = {}  # fingerprint of a checkpoint → largest peak of its cells, bytes
        self._sizes: dict[str, int] = {}  # model → `_weights_bytes`

    def saw(self, cell: Cell, peak_bytes: int) -> None:
        """Keep the peak of a cell: later ones of its checkpoint are taken to need as much."""
        key = cell.fingerprints.get("checkpoint", "")
        self._seen[key] = max(self._seen.get(key, 0), peak_bytes)

    def needed_bytes(self, cell: Cell) -> int:
        """An estimate of a cell's peak: from the size of its checkpoint, or more if a cell of it took more."""
        model = cell.config.model
        key = model.model_dump_json()
        if key not in self._sizes:
            self._sizes[key] = _weights_bytes(model)
        estimate = LIBRARIES_BYTES + COPIES * self._sizes[key]
        return max(estimate, self._seen.get(cell.fingerprints.get("checkpoint", ""), 0))

    def has_room(self, cell: Cell, running: Iterable[tuple[Cell, int]]) -> bool:
        """Whether there is memory for a cell.

        Args:
            cell: to be started.
            running: the others, with the bytes that each has now; the rest of what they need is kept for them.
        """
        kept = sum(max(0, self.needed_bytes(other) - now_bytes) for other, now_bytes in running)
        return self._available() - kept >= self.needed_bytes(cell)


def _weights_bytes(model: ModelConfig) -> int:
    """Bytes of a model in fp32; 0 if it cannot be told, as for a checkpoint that is not on this machine yet."""
    try:
        return FP32_BYTES * (models.parameters(model) or 0)
    except (ValueError, Unavailable, OSError):  # ConfigError is a ValueError
        return 0


def available_bytes(root: Path = ROOT) -> int:
    """Memory that can still be allocated: the machine's, or less if the control group (a container) has a limit.

    Its page cache counts as available, as it is dropped first (kernel documentation, cgroup-v2, memory).
    """
    return min([psutil.virtual_memory().available, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterable[int]:
    own = next((line for line in (read_text(root / "proc/self/cgroup") or "").splitlines() if line[:3] == "0::"), "")
    folder = Path(own[3:].lstrip("/"))
    for part in (folder, *folder.parents) if own else ():
        group = root / "sys/fs/cgroup" / part
        limit, used = read_text(group / "memory.max"), read_text(group / "memory.current")
        if limit is not None and used is not None and limit.isdigit():
            stat = dict(line.split() for line in (read_text(group / "memory.stat") or "").splitlines())
            yield int(limit) - int(used) + int(stat.get("inactive_file", 0))
