"""What differs between two measurements of a cell: settings, checkpoint, versions, machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantlab.records.bundle import PATHS
from quantlab.records.cell_id import identity
from quantlab.records.labels import short
from quantlab.records.schema import Record

# What times depend on besides the software that is measured: name → key of the environment.
MACHINE = {
    "processor": "processor",
    "usable cores": "usable_cores",
    "threads": "threads",
    "device": "device",
    "GPU": "gpu",
}
FIRST = ("quant.name", "model.name")  # of the settings that changed, those that are named first
_ABSENT = object()


def settings(record: Record) -> dict[str, Any]:
    """The settings that identify a cell, by dotted key, without paths."""
    return {key: value for key, value in _leaves(identity(record.config)) if key not in PATHS}


def differing(before: Record, now: Record) -> list[str]:
    """Keys of the settings that differ."""
    old, new = settings(before), settings(now)
    return [key for key in dict.fromkeys([*old, *new]) if old.get(key, _ABSENT) != new.get(key, _ABSENT)]


def changes(before: Record, now: Record) -> list[str]:
    """Everything that differs, in words, the likeliest causes first: `torch 2.11 → 2.12`, `quant.bits 4 → 3`."""
    keys = settings_changed(before, now)
    first = [keys.pop(key) for key in FIRST if key in keys]
    marks = [{name: short(mark) for name, mark in item.fingerprints.items()} for item in (before, now)]
    facts = [{**machine(item), "Python": item.environment.get("python")} for item in (before, now)]
    versions = _pairs(_versions(before), _versions(now))
    return [*first, *_pairs(*marks), *versions, *_pairs(*facts), *keys.values()]


def settings_changed(before: Record, now: Record) -> dict[str, str]:
    """The settings that differ, in words, by key: `quant.bits 4 → 3`."""
    old, new = settings(before), settings(now)
    return {key: f"{key} {_word(old.get(key))} → {_word(new.get(key))}" for key in differing(before, now)}


def machine(record: Record) -> dict[str, Any]:
    """What times depend on besides the software."""
    return {name: record.environment.get(key) for name, key in MACHINE.items()}


def other_machine(before: Record, now: Record) -> str | None:
    """How the machine differs from that of the baseline, in words; None if it is like it."""
    return ", ".join(_pairs(machine(before), machine(now))) or None


def _versions(record: Record) -> Mapping[str, Any]:
    versions = record.environment.get("versions")
    return versions if isinstance(versions, Mapping) else {}


def _pairs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([*before, *now])
    return [
        f"{name} {_word(before.get(name))} → {_word(now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _word(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _leaves(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in part.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
