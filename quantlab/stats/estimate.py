"""Figures with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

Interval = tuple[float, float]


@final
@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; no interval if there is too little data, or only one measurement."""

    value: float
    ci95: Interval | None = None

    def minus(self, other: Estimate) -> Estimate:
        """The difference to an independent estimate.

        The interval is Zou and Donner's (MOVER; Statistics in Medicine 27:1693, 2008). If two splits share speakers,
        their errors are positively correlated, which makes it too wide but never too narrow.
        """
        value = self.value - other.value
        if self.ci95 is None or other.ci95 is None:
            return Estimate(value)
        low = value - math.hypot(self.value - self.ci95[0], other.ci95[1] - other.value)
        high = value + math.hypot(self.ci95[1] - self.value, other.value - other.ci95[0])
        return Estimate(value, (low, high))

    def apart(self, other: Estimate) -> bool | None:
        """Whether the two intervals do not overlap; None if one is missing."""
        if self.ci95 is None or other.ci95 is None:
            return None
        return self.ci95[1] < other.ci95[0] or other.ci95[1] < self.ci95[0]

    def times(self, factor: float) -> Estimate:
        """Scale value and interval by a positive factor, e.g. to change the unit."""
        return Estimate(factor * self.value, self.ci95 and (factor * self.ci95[0], factor * self.ci95[1]))
