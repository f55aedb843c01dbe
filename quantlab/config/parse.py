"""Validation of a composed mapping: a `RunConfig`, or one line per mistake with what is allowed."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from quantlab.config.effect import refuse_without_effect
from quantlab.config.explain import explained
from quantlab.config.recipe import with_recipe
from quantlab.config.schema import RunConfig
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError
from quantlab.util.progress import over
from quantlab.util.redact import why_secret

_ADDRESS = "tracking.uri"  # the one setting that may hold a secret: `quantlab.util.address`


def parse_grid(points: Sequence[Mapping[str, Any]]) -> list[RunConfig]:
    """Validate every point of a grid, and filter them by `only` (globs over `axes`).

    Raises:
        ConfigError: see `parse_config` and `with_recipe`; a key acts in no cell; or `only` matches no cell.
    """
    kept: list[RunConfig] = []
    left_out: list[RunConfig] = []
    configs: list[RunConfig] = []
    _refuse_secrets(dict.fromkeys(text for point in points for text in _texts(point, "")))  # each once
    points = [with_recipe(point) for point in points]
    for point in over(points, "cells validated"):
        only = point.get("only")
        config = _validated(RunConfig, {key: value for key, value in point.items() if key != "only"})
        configs.append(config)
        wanted = only is None or any(fnmatch.fnmatchcase(config.axes, pattern) for pattern in _as_list(only))
        (kept if wanted else left_out).append(config)
    refuse_without_effect(points, configs)
    if points and not kept:
        named = f"expected a glob that matches names like {left_out[0].axes}"
        raise ConfigError(
            f"only={points[0].get('only')}: keeps no cell of the grid ({counted(len(points), 'cell')}); {named}"
        )
    return kept


def _as_list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def parse_config(raw: Mapping[str, Any]) -> RunConfig:
    """Validate a plain mapping, as composed by Hydra.

    Raises:
        ConfigError: one line per wrong key: its dotted name, what it got, what is allowed.
    """
    return parse(RunConfig, raw)


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string of a mapping, with its dotted key."""
    if isinstance(value, str):
        yield key.rstrip("."), value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{key}{name}.")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, key)


Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], raw: Mapping[str, Any], prefix: str = "") -> Model:
    """Validate a plain mapping; `prefix` (`hydra.launcher.`) goes before the keys of its messages.

    Raises:
        ConfigError: see `parse_config`.
    """
    _refuse_secrets(dict.fromkeys(_texts(raw, prefix)))
    return _validated(model, raw, prefix)


def _refuse_secrets(texts: Iterable[tuple[str, str]]) -> None:
    for key, text in texts:
        if key != _ADDRESS and (what := why_secret(text)):
            raise ConfigError(
                f"{key if key.isprintable() else repr(key)}: it contains {what}, but settings are stored and printed: "
                "put it in the environment (sbatch passes that on to its jobs), or in a file that only you can read"
            )


def _validated(model: type[Model], raw: Mapping[str, Any], prefix: str = "") -> Model:
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError("\n".join(explained(error, model, prefix))) from None
