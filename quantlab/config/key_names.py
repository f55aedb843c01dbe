"""The keys that exist, and the one that a misspelt key may mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from quantlab.config.schema import RunConfig
from quantlab.util.errors import did_you_mean


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
