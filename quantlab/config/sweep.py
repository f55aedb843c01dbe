"""Expansion of a sweep from a few composed points, since composing one takes 0.1 s or more.

If no two axes of a sweep change the same key, any point is the first point plus the changes of each of its
overrides. Those of a single key, and of an option that sets its own section only, are known without composing. Ten
models × ten quantizers × ten seeds then take two compositions instead of a thousand, and 20 where options must be
composed. The last point is composed in any case, as a check.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from quantlab.util.progress import over

Overrides = tuple[str, ...]  # overrides of one point, one per axis: `quant=hqq_int4`
Point = dict[str, Any]  # composed
Place = tuple[str, ...]  # (section, key), or (key,) at the top level, or (section,) as a whole
Changes = dict[Place, Any]
Values = Callable[[str], Changes | None]


def needed(sweep: Sequence[Overrides], values: Values) -> list[Overrides]:
    """The points to compose: the first, the last, and the first with one override of another point in it.

    Args:
        sweep: every point.
        values: changes made by an override; None if it must be composed to find out.
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
    """Every point, in the order of `sweep`; None if the axes are not independent and each must be composed.

    Args:
        sweep: every point.
        composed: the points returned by `needed`.
        values: see `needed`.
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
    """The changes that an override makes to the first point."""
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
            section[place[-1]] = dict(value) if isinstance(value, dict) else value
    return point


def _same(one: Any, other: Any) -> bool:
    """Equal, including the order of keys, since the order of splits matters."""
    return json.dumps(one) == json.dumps(other)
