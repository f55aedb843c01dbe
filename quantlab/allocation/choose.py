"""Choice of one format for each module: the least total loss within a budget of bytes, as an integer program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantlab.util.errors import ConfigError

_GAP = 1e-6  # of the sum of losses, above the least: exact for whatever can be measured, and proven in seconds


@dataclass(frozen=True)
class Format:
    """A way to store a module."""

    bits: float | None  # None: not quantized
    bytes: int
    loss: float  # by which the model gets worse if only this module is stored so


def choose(formats: Mapping[str, Sequence[Format]], budget_bytes: int) -> dict[str, Format]:
    """One format for each module, with the least sum of losses whose bytes are within the budget.

    Args:
        formats: of each module.
        budget_bytes: of all modules together.

    Raises:
        ConfigError: the smallest formats take more bytes.
    """
    smallest = cheapest(formats)
    least = sum(item.bytes for item in smallest.values())
    if least > budget_bytes:
        raise ConfigError(f"{budget_bytes:,} bytes: the smallest formats of all modules take {least:,}")
    best = smallest
    while True:
        # each time in units of the loss found before, as the solver's gap is absolute too
        found = _solved(formats, smallest, budget_bytes - least, _loss(best))
        if _loss(found) >= _loss(best) * (1 - _GAP):
            return best
        best = found


def _loss(chosen: Mapping[str, Format]) -> float:
    return sum(item.loss for item in chosen.values())


def _solved(
    formats: Mapping[str, Sequence[Format]], smallest: Mapping[str, Format], room_bytes: int, most: float
) -> dict[str, Format]:
    """One format for each module with at most `room_bytes` more than the smallest, and a loss of at most `most`."""
    from scipy.optimize import LinearConstraint, milp

    owned = [(name, item) for name, some in formats.items() for item in some if item.loss <= most]
    one_each = np.array([[owner == name for owner, _ in owned] for name in formats], dtype=float)
    # tolerances are absolute: in the largest common unit of bytes, one too many is far above them
    more = [item.bytes - smallest[owner].bytes for owner, item in owned]
    unit = math.gcd(*more) or 1
    found = milp(
        np.array([item.loss for _, item in owned]) / (most or 1.0),
        integrality=np.ones(len(owned)),
        bounds=(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(np.array(more) // unit, ub=room_bytes // unit)],
        options={"mip_rel_gap": _GAP},
    )
    assert found.x is not None  # what was found before, or the smallest, fits
    chosen = {owner: item for (owner, item), taken in zip(owned, found.x, strict=True) if taken > 0.5}
    assert sum(item.bytes - smallest[owner].bytes for owner, item in chosen.items()) <= room_bytes
    return chosen


def cheapest(formats: Mapping[str, Sequence[Format]]) -> dict[str, Format]:
    """The smallest format of each module."""
    return {name: min(some, key=lambda item: item.bytes) for name, some in formats.items()}
