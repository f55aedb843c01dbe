"""The border: a composed mapping becomes a RunConfig, or one line per mistake that says what would have been right."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from quantlab.config import RunConfig
from quantlab.errors import ConfigError, did_you_mean


def parse_grid(points: Sequence[Mapping[str, Any]]) -> list[RunConfig]:
    """Validate every point of a grid; `only` (globs over `axes`) keeps just some of them.

    Raises:
        ConfigError: see `parse_config`; or `only` keeps none.
    """
    kept = []
    for point in points:
        only = point.get("only")
        config = parse_config({key: value for key, value in point.items() if key != "only"})
        if only is None or any(fnmatch.fnmatchcase(config.axes, pattern) for pattern in _as_list(only)):
            kept.append(config)
    if points and not kept:
        raise ConfigError(f"only={points[0].get('only')}: keeps none of the {len(points)} cells of the grid")
    return kept


def _as_list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def parse_config(raw: Mapping[str, Any]) -> RunConfig:
    """Validate a plain mapping (what Hydra composed).

    Raises:
        ConfigError: one line per wrong key: its dotted name, what it got, what is allowed.
    """
    return parse(RunConfig, raw)


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], raw: Mapping[str, Any], prefix: str = "") -> Model:
    """Validate a plain mapping; `prefix` (`hydra.launcher.`) goes before the keys of its messages.

    Raises:
        ConfigError: see `parse_config`.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item, model, prefix) for item in error.errors())) from None


def _explain(item: Any, model: type[BaseModel], prefix: str) -> str:
    key = prefix + ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        *parents, last = item["loc"]
        return f"{key}: no such key{did_you_mean(str(last), fields_at(model, parents))}"
    if item["type"] == "value_error":
        return item["msg"].removeprefix("Value error, ")
    return f"{key}={item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"


def nearest_key(dotted: str) -> str:
    """What a mistyped `quant.grop_size` or `quatn` was probably meant to be."""
    *parents, last = dotted.lstrip("+~").split(".")
    try:
        fields = fields_at(RunConfig, parents)
    except KeyError:
        return nearest_key(".".join(parents))
    extra = [] if parents else ["experiment", "only"]
    return did_you_mean(last, fields + extra, prefix=".".join([*parents, ""]))


def fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The keys of the part of a model that a dotted name leads to.

    Raises:
        KeyError: it leads nowhere.
    """
    part: Any = model
    for name in loc:
        part = part.model_fields[name].annotation
    return list(getattr(part, "model_fields", {}))
