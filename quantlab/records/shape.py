"""Type checks of a stored configuration, as far as its readers rely on them.

A record may come from another version with other keys and limits, so its configuration is not fully validated; but a
string must be a string, and a scalar must not be a list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from quantlab.util.errors import shortened

_WORDS: dict[type, str] = {
    **{int: "a number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"},
    **{list: "a list of texts", tuple: "a list of texts", dict: "a mapping"},
}


class Kind(NamedTuple):
    """Allowed types of the value at a key."""

    types: frozenset[type]
    parts: Shape | None = None  # for a mapping with known keys


Shape = Mapping[str, Kind]
DEEPEST = 20  # maximum nesting; quantlab's own is 4
LARGEST = 2**63  # maximum number: more than any count, and small enough that results stay finite
UNKNOWN = Kind(frozenset({str, int, float, bool, NoneType}))  # for keys that this version does not know


def shape_of(model: type[BaseModel]) -> Shape:
    """The types of a model's JSON dump, by key."""
    return {name: _kind(field.annotation) for name, field in model.model_fields.items()}


def _kind(annotation: Any) -> Kind:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin in (Union, UnionType):
        kinds = [_kind(argument) for argument in arguments]
        parts = next((kind.parts for kind in kinds if kind.parts is not None), None)
        return Kind(frozenset().union(*(kind.types for kind in kinds)), parts)
    if origin is Literal:
        return Kind(frozenset(map(type, arguments)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Kind(frozenset({dict}), shape_of(annotation))
    plain = origin or annotation
    same = next((kinds for kinds in ({int, float}, {list, tuple}) if plain in kinds), {plain})
    return Kind(frozenset(same))


def check(value: Mapping[str, Any], shape: Shape, place: str = "") -> None:
    """Check the types in a mapping; keys may be missing or unknown.

    Raises:
        ValueError: a value has a wrong type; the message names the key, the value and what is allowed.
    """
    for key, item in value.items():
        kind = shape.get(key, UNKNOWN)
        known = type(item) in kind.types
        if known and type(item) is dict and kind.parts is not None:
            check(item, kind.parts, f"{place}{key}.")
        elif not known or (type(item) in (list, tuple) and not all(type(one) is str for one in item)):
            allowed = " or ".join(sorted({_WORDS[one] for one in kind.types}))
            raise ValueError(f"{place}{key}={shortened(item)}: expected {allowed}")


_ALWAYS_PLAIN = (str, bool, type(None))


def check_plain(value: object, place: str = "", depth: int = 0) -> None:
    """Check that values can be computed with, written as JSON and shown.

    Raises:
        ValueError: a number is not finite or too large, or the nesting too deep; the message names the key.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place.rstrip('.')}={value}: expected a finite number")
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise ValueError(f"{place.rstrip('.')}: a number above {LARGEST:.0e}")
    if isinstance(value, Mapping | list | tuple):
        if depth == DEEPEST:
            raise ValueError(f"{place.rstrip('.')}: more than {DEEPEST} parts within each other")
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            if type(part) not in _ALWAYS_PLAIN:  # most are, and a grid has 100,000 of them
                check_plain(part, f"{place}{shortened(key)[1:-1] if isinstance(key, str) else key}.", depth + 1)
