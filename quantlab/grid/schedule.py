"""Which cells may run at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quantlab.grid.memory import Memory
from quantlab.grid.plan import Cell
from quantlab.grid.shares import Share, Shares


@dataclass(frozen=True)
class Seat:
    """A cell that may run: in its share of the machine, or alone."""

    cell: Cell
    share: Share | None  # None: alone, with the whole machine


class Schedule:
    """Admits cells to the machine.

    Args:
        jobs: number of cells side by side; auto: as many as there are cores or GPUs for.
        shares: of the machine.
        memory: of the machine.
    """

    def __init__(self, jobs: int | Literal["auto"], shares: Shares, memory: Memory) -> None:
        self._jobs, self._shares, self.memory = jobs, shares, memory
        self._alone: set[str] = set()

    @property
    def is_shared(self) -> bool:
        """Whether cells may run side by side at all."""
        return self._jobs != 1

    def isolate(self, cell: Cell) -> None:
        """Admit a cell only alone from now on."""
        self._alone.add(cell.id)

    def is_alone(self, cell: Cell) -> bool:
        """Whether nothing may run beside a cell: its times are taken with care, or it needs all memory."""
        return self._jobs == 1 or cell.config.protocol.interleave or cell.id in self._alone

    def admit(self, cell: Cell, running: Sequence[tuple[Seat, int]]) -> Seat | None:
        """Admit a cell; None if it has to wait. Where nothing runs, it is always admitted.

        Args:
            cell: to be started.
            running: the seats of the others, with the bytes of memory that each has now.
        """
        if not running and self.is_alone(cell):
            return Seat(cell, None)
        if self.is_alone(cell) or any(seat.share is None for seat, _ in running):
            return None
        if self._jobs != "auto" and len(running) >= self._jobs:
            return None
        if running and not self.memory.has_room(cell, [(seat.cell, now_bytes) for seat, now_bytes in running]):
            return None
        share = self._shares.take(cell.config.device.name, cell.config.device.threads or 1)
        return Seat(cell, share) if share is not None or not running else None

    def leave(self, seat: Seat) -> None:
        """The cell of this seat has ended."""
        if seat.share is not None:
            self._shares.give_back(seat.share)
