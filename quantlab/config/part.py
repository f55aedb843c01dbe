"""A part of the configuration: strict and frozen, with bounds that can be asked for."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def reset(part: Part, keys: Iterable[str]) -> None:
    """Set keys to their defaults during validation."""
    for key in keys:
        object.__setattr__(part, key, type(part).model_fields[key].default)


def bounds(part: type[Part], key: str) -> tuple[int, int]:
    """The smallest and largest allowed value of an integer key."""
    found = part.model_fields[key].metadata
    least, most = (next(getattr(item, name) for item in found if hasattr(item, name)) for name in ("ge", "le"))
    return int(least), int(most)
