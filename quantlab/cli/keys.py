"""Keys of a grid: list, descriptions, and shell completion."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
import yaml

from quantlab.util.resources import shared_dir

STUDIES = "experiment"
CONFIG_DIR = "--config-dir"
Function = TypeVar("Function", bound=Callable[..., Any])


def version() -> str:
    """The line that `--version` prints."""
    return f"quantlab {importlib.metadata.version('quantlab')}"


@cache
def groups() -> dict[str, list[str]]:
    """Each group of `conf/` with its options, in the order of `conf/config.yaml`."""
    defaults = yaml.safe_load((shared_dir("conf") / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    names = [name for item in defaults if isinstance(item, dict) for name in item if not name.startswith("override")]
    places = {name: shared_dir("experiments") if name == STUDIES else shared_dir("conf") / name for name in names}
    return {name: sorted(path.stem for path in place.glob("*.yaml")) for name, place in places.items()}


def described() -> Iterator[tuple[str, str]]:
    """Every key with its description, choices and default from `quantlab.config.schema`."""
    from quantlab.config.schema import RunConfig  # slow import

    yield from _described(RunConfig, "")


def described_of(part: Any) -> Iterator[tuple[str, str]]:
    """Every key of a part of the configuration, as `described`."""
    yield from _described(part, "")


def _described(part: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in part.model_fields.items():
        inner = next((item for item in _inside(field.annotation) if hasattr(item, "model_fields")), None)
        if inner is not None and get_origin(field.annotation) is not dict:
            yield from _described(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, "; ".join(filter(None, [field.description, _choices(field), _default(field)]))


def _inside(annotation: Any) -> Iterator[Any]:
    yield annotation
    if get_origin(annotation) is not Literal:
        for item in get_args(annotation):
            yield from _inside(item)


def _choices(field: Any) -> str:
    literals = [item for item in _inside(field.annotation) if get_origin(item) is Literal]
    return ", ".join(str(value) for item in literals for value in get_args(item))


def _default(field: Any) -> str:
    if field.is_required() or field.default_factory is not None or field.default in (None, ()):
        return ""
    value = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"default {value}"


def write_groups(formatter: click.HelpFormatter) -> None:
    """The groups and their options."""
    with formatter.section("Groups, KEY=OPTION"):
        formatter.write_dl([(name, ", ".join(options)) for name, options in groups().items()])


def write_keys(formatter: click.HelpFormatter) -> None:
    """Every key."""
    with formatter.section("Keys, KEY=VALUE"):
        formatter.write_dl(list(described()), col_max=36)


def grid_arguments(function: Function) -> Function:
    """Decorator: the command takes grid keys in Hydra's syntax."""
    argument = click.argument(
        "arguments", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE]...", shell_complete=completions
    )
    return argument(function)


def config_dir(function: Function) -> Function:
    """The option of Hydra that adds options to the groups."""
    option = click.option(
        CONFIG_DIR,
        metavar="DIR",
        help="A folder of options and studies of your own: DIR/quant/mine.yaml is quant=mine, DIR/experiment/x.yaml "
        "is experiment=x.",
    )
    return option(function)


def completions(ctx: click.Context, param: click.Parameter | None, incomplete: str) -> list[Any]:
    """Shell completions: keys, or options of a group; in a comma list, for its last value."""
    from click.shell_completion import CompletionItem

    before = [*ctx.params.get("arguments", ()), *ctx.args]
    if before[-1:] == ["="]:  # bash splits words at "="
        return _values((before[-2:] or [""])[0], "", incomplete)
    if not incomplete and before and before[-1] in groups():  # and click drops a "=" at the end
        return _values(before[-1], "", "")
    key, equals, value = incomplete.partition("=")
    if equals:
        return _values(key, f"{key}=", value)
    names = {f"{name}=": "" for name in groups()} | {f"{name}=": what for name, what in described()}
    return [CompletionItem(name, help=what) for name, what in names.items() if name.startswith(incomplete)]


def _values(key: str, prefix: str, value: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    first, comma, last = value.rpartition(",")
    found = [option for option in groups().get(key, []) if option.startswith(last)]
    return [CompletionItem(f"{prefix}{first}{comma}{option}") for option in found]
