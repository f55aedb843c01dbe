"""Validation of a composed mapping: a `RunConfig`, or one line per mistake with what is allowed."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from quantlab.config.effect import refuse_without_effect
from quantlab.config.recipe import with_recipe
from quantlab.config.schema import RunConfig
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError, did_you_mean, shortened, suggestion
from quantlab.util.progress import over
from quantlab.util.redact import why_secret

_LONGEST_KEY = 80  # characters
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
        unknown = [_explain(item, model, prefix) for item in error.errors() if item["type"] == "extra_forbidden"]
        wrong = [_explain(item, model, prefix) for item in error.errors() if item["type"] != "extra_forbidden"]
        mistyped = [text for text in unknown if "did you mean" in text]
        others = [text for text in unknown if text not in mistyped]  # each with the list of what is allowed
        raise ConfigError("\n".join([*([" ".join(mistyped)] if mistyped else []), *others, *wrong])) from None


def _explain(item: Any, model: type[BaseModel], prefix: str) -> str:
    dotted = prefix + ".".join(str(part) for part in item["loc"])
    key = dotted if dotted.isprintable() and len(dotted) <= _LONGEST_KEY else shortened(dotted)
    if key.partition(".")[0] == "experiment":
        return "experiment: the first line of its YAML has to be: # @package _global_"
    if item["type"] == "extra_forbidden":
        return f"{key}: no such key{nearest_key(dotted, model, prefix)}"
    if item["type"] == "missing":
        return f"{key}: required, but not given"
    if item["type"] == "address":  # the value may hold a password
        return str(item["msg"])
    if item["type"] == "value_error":
        return item["msg"].removeprefix("Value error, ")
    return f"{key}={shortened(item['input'])}: {_allowed(item, key)}"


def _allowed(item: Any, key: str) -> str:
    """What is allowed: pydantic's message, or our own where pydantic's is about Python types."""
    own = {
        "bool_type": "expected true or false",
        "tuple_type": f"expected a list, e.g. {key}=[{str(item['input'])[:40]}]",
        "too_short": "give at least one, or null for all",
        "string_too_short": "it is empty",
    }
    told = own.get(item["type"]) or f"{item['msg'][0].lower()}{item['msg'][1:]}"
    names = re.findall("'([^']*)'", item.get("ctx", {}).get("expected", ""))  # of a Literal
    allowed = ["true", "false"] if "bool" in item["type"] else names
    return told + (suggestion(item["input"], allowed) if isinstance(item["input"], str) else "")


def nearest_key(dotted: str, model: type[BaseModel] = RunConfig, prefix: str = "") -> str:
    """Suggest a valid key for a misspelt one such as `quant.grop_size`; `prefix` goes before the keys of `model`."""
    *parents, last = dotted.lstrip("+~").removeprefix(prefix).split(".")
    try:
        fields = _fields_at(model, parents)
    except KeyError:
        return nearest_key(prefix + ".".join(parents), model, prefix)
    if last in fields:
        return f"; {dotted} is a group: choose one of its options, {dotted}=NAME, or set one of its keys"
    if elsewhere := [key for key in keys(model) if key.endswith(f".{last}")]:
        return f"; did you mean '{prefix}{elsewhere[0]}'?"
    extra = ["experiment", "only"] if model is RunConfig and not parents else []
    return did_you_mean(last, fields + extra, prefix=prefix + ".".join([*parents, ""]))


def keys(part: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys below a part."""
    for name in getattr(part, "model_fields", {}):
        yield prefix + name
        yield from keys(_part(part.model_fields[name].annotation), f"{prefix}{name}.")


def _fields_at(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    part: Any = model
    for name in loc:
        part = _part(part.model_fields[name].annotation)
    return list(getattr(part, "model_fields", {}))


def kind_of(dotted: str) -> Literal["text", "list"] | None:
    """Whether a key takes a string or a list of strings; None for any other key."""
    *parents, last = dotted.lstrip("+").split(".")
    part: Any = RunConfig
    for name in [*parents, last]:
        fields = getattr(part, "model_fields", {})
        if name not in fields:
            return None
        part = _part(fields[name].annotation)
    kinds = set(_inside(fields[last].annotation))
    if tuple in kinds:
        return "list"
    return "text" if str in kinds and dict not in kinds else None


def _inside(annotation: Any) -> Iterator[Any]:
    """The types inside an annotation: str, tuple and None for `Annotated[tuple[str, ...], …] | None`."""
    yield get_origin(annotation) or annotation
    if get_origin(annotation) is not Literal:
        for item in get_args(annotation):
            yield from _inside(item)


def _part(annotation: Any) -> Any:
    """The model behind `Architecture | None`."""
    return next((item for item in get_args(annotation) if hasattr(item, "model_fields")), annotation)


SECTIONS = frozenset(key.rpartition(".")[0] for key in keys(RunConfig)) - {""}  # groups, and groups of keys within them
KEYS = frozenset(keys(RunConfig)) - SECTIONS
