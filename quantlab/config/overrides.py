"""The shortest command line that reproduces a configuration: the nearest options, then overrides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantlab.config.options import names, option, read
from quantlab.config.quant import RECIPE
from quantlab.config.schema import AS_SHIPPED
from quantlab.util.quoting import override, shell
from quantlab.util.redact import HIDDEN
from quantlab.util.resources import shared_dir

GROUPS = ("model", "quant", "device", "dataset", "protocol", "runtime", "tracking")
_DEFAULTS = {"runtime": "eager", "tracking": "local"}  # printed only if another option was chosen
# Settings that do not affect the measurement; `output_dir` is taken from where the records are now.
_LEFT_OUT = ("export", "resume", "output_dir", "jobs")
_BASELINE = "none"
_OF_EVERY_QUANTIZER = ("quant.name", "quant.library", "quant.scheme")  # quant=none would inherit these
_READ_OFF = {  # library, which names its option → keys of quant that are read from a file
    AS_SHIPPED: ("bits", "format", "scheme", "granularity", "group_size", "symmetric", "double_quant"),
    RECIPE: ("method", "group_size", "act_order", "damping", "modules"),
}
Overrides = dict[str, Any]  # dotted key → value; group → option; `~key` deletes, `++key` adds


def command(config: Mapping[str, Any], root: str, reset: tuple[str, ...] = ()) -> str:
    """The shell command that measures a cell and its baseline.

    Args:
        config: the resolved configuration of the cell, as stored in its record.
        root: folder of the records.
        reset: keys to set back to their defaults.
    """
    found = {key: value for key, value in overrides(config).items() if key not in reset}
    found |= {} if root == "mlruns" else {"output_dir": root}
    if found["quant"] == AS_SHIPPED and "baseline.path" not in found:
        return _line(found)
    if found["quant"] == _BASELINE and not any(key in found for key in _OF_EVERY_QUANTIZER):
        return _line(found)
    if any(key in found for key in _OF_EVERY_QUANTIZER):
        alone = {key: value for key, value in found.items() if not key.startswith("quant.")} | {"quant": _BASELINE}
        return f"{_line(alone)} && {_line(found)}"
    quants = f"{_BASELINE},{found['quant']}"
    return _line(found, {"quant": quants})


def _line(found: Mapping[str, Any], sweep: Mapping[str, str] | None = None) -> str:
    sweep = sweep or {}
    arguments = [_argument(key, value) if key not in sweep else f"{key}={sweep[key]}" for key, value in found.items()]
    return " ".join(["quantlab", *(["-m"] if sweep else []), *map(shell, arguments)])


def _argument(key: str, value: Any) -> str:
    return key if key.startswith("~") else override(key, value)


def overrides(config: Mapping[str, Any]) -> Overrides:
    """The options closest to a configuration, then every setting that differs from them."""
    chosen: Overrides = {}
    further: Overrides = {}
    for group in GROUPS:
        part = config.get(group) or {}
        option, differing = _nearest(group, part)
        if option != _DEFAULTS.get(group):
            chosen[group] = option
        further |= differing
    rest = {key: value for key, value in config.items() if key not in (*GROUPS, *_LEFT_OUT)}
    further |= dict(_differing(read(shared_dir("conf") / "config.yaml"), rest, ""))
    return chosen | {key: value for key, value in further.items() if HIDDEN not in str(value)}


def _nearest(group: str, part: Mapping[str, Any]) -> tuple[str, Overrides]:
    """The option that needs the fewest overrides; ties go to the option of the same name, which `model` always takes.

    A model's name is its own: an option of another that needs fewer overrides would be read as that one.
    """
    if group == "quant" and (library := str(part.get("library"))) in _READ_OFF:
        own = {key: value for key, value in part.items() if key not in _READ_OFF[library]}
        return library, dict(_differing(option(group, library), own, "quant."))
    found = {
        name: dict(_differing(option(group, name), part, f"{group}."))
        for name in names(group)
        if name != "auto"  # it is resolved to a device
    }
    if group == "model" and (own_name := str(part.get("name"))) in found:
        return own_name, found[own_name]
    best = min(found, key=lambda option: (len(found[option]), option != part.get("name")))
    return best, found[best]


def _differing(default: Mapping[str, Any], own: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Keys of `own` whose value differs in `default`; a missing key counts as null."""
    for name, value in own.items():
        key, usual = f"{prefix}{name}", default.get(name)
        if name == "hub_splits":
            yield from _split_differences(usual or {}, value, f"{key}.")
        elif isinstance(value, Mapping) and isinstance(usual, Mapping):
            yield from _differing(usual, value, f"{key}.")
        elif (list(value) if isinstance(value, tuple) else value) != usual:
            yield key if name in default else f"++{key}", value


def _split_differences(default: Mapping[str, Any], own: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Differences in the splits of a hub dataset, the one mapping with free keys."""
    whole = {name: {"config": None} | split for name, split in default.items()}
    for name in whole.keys() - own.keys():
        yield f"~{prefix}{name}", None
    for name, split in own.items():
        if split != whole.get(name):
            yield f"++{prefix}{name}", split
