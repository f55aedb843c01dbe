"""Expansion of a sweep from a few composed points, as composing one takes a tenth of a second and more.

A point is what its overrides make of the configuration. Where no two axes of a sweep touch the same key, the point of
several changes is the changes of each together, so that ten models × ten quantizers × ten seeds take twenty
compositions and not a thousand. The last point is composed as well, and must come out the same.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from quantlab.util.progress import over

Overrides = tuple[str, ...]  # of one point, an override for each axis: `quant=hqq_int4`
Point = dict[str, Any]  # composed
Place = tuple[str, ...]  # section and key, or the key alone of what is in no section
Changes = dict[Place, Any]
Values = Callable[[str], Changes | None]


def needed(sweep: Sequence[Overrides], values: Values) -> list[Overrides]:
    """The points to compose: the first, the last, and the first with one override of another point in it.

    Args:
        sweep: every point.
        values: what an override that sets a single key changes; None where only composing can tell.
    """
    first = sweep[0]
    changed = [
        (*first[:axis], override, *first[axis + 1 :])
        for axis, column in enumerate(zip(*sweep, strict=True))
        for override in over(list(dict.fromkeys(column)), "values read")
        if override != first[axis] and values(override) is None
    ]
    return list(dict.fromkeys([first, *changed, sweep[-1]]))


def expanded(sweep: Sequence[Overrides], composed: Mapping[Overrides, Point], values: Values) -> list[Point] | None:
    """Every point, in the order of `sweep`; None where the axes are not independent, so that each must be composed.

    Args:
        sweep: every point.
        composed: those of `needed`.
        values: as there.
    """
    first = sweep[0]
    base = composed[first]
    if any(_places(point) != _places(base) for point in composed.values()):
        return None
    axes = [
        {override: _effect(override, axis, first, composed, values) for override in dict.fromkeys(column)}
        for axis, column in enumerate(zip(*sweep, strict=True))
    ]
    if not _independent(axes) or _differences(_changed(base, axes, sweep[-1]), composed[sweep[-1]]):
        return None
    return [_changed(base, axes, overrides) for overrides in over(sweep, "cells composed")]


def _effect(override: str, axis: int, first: Overrides, composed: Mapping[Overrides, Point], values: Values) -> Changes:
    """What an override changes in the first point."""
    if override == first[axis]:
        return {}
    known = values(override)
    if known is not None:
        return known
    return _differences(composed[first], composed[*first[:axis], override, *first[axis + 1 :]])


def _differences(base: Point, other: Point) -> Changes:
    before = dict(_entries(base))
    return {place: value for place, value in _entries(other) if not _same(before[place], value)}


def _places(point: Point) -> set[Place]:
    return {place for place, _ in _entries(point)}


def _entries(point: Point) -> Iterator[tuple[Place, Any]]:
    for name, part in point.items():
        if isinstance(part, dict):
            yield from (((name, key), value) for key, value in part.items())
        else:
            yield (name,), part


def _independent(axes: Sequence[Mapping[str, Changes]]) -> bool:
    touched = [{place for changes in axis.values() for place in changes} for axis in axes]
    return not any(one & other for one, other in itertools.combinations(touched, 2))


def _changed(base: Point, axes: Sequence[Mapping[str, Changes]], overrides: Overrides) -> Point:
    point = {name: dict(part) if isinstance(part, dict) else part for name, part in base.items()}
    for axis, override in zip(axes, overrides, strict=True):
        for place, value in axis[override].items():
            section = point[place[0]] if len(place) == 2 else point
            section[place[-1]] = value
    return point


def _same(one: Any, other: Any) -> bool:
    """Equal, in the order of keys too: that of splits means something."""
    return json.dumps(one) == json.dumps(other)
