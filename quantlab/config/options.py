"""Options of the configuration groups in `conf/`, read without Hydra."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from quantlab.util.resources import shared_dir

BASE = "base"  # folder of conf/ with the defaults that a group's options share; not a group itself


@functools.cache
def names(group: str) -> tuple[str, ...]:
    """The options of a group, in alphabetical order."""
    return tuple(sorted(path.stem for path in (shared_dir("conf") / group).glob("*.yaml")))


@functools.cache
def option(group: str, name: str) -> Mapping[str, Any]:
    """The settings of an option, including those shared by its group."""
    own = dict(read(shared_dir("conf") / group / f"{name}.yaml"))
    shared = read(shared_dir("conf") / BASE / f"{group}.yaml") if own.pop("defaults", None) else {}
    return {**shared, **own}


@functools.cache
def read(path: Path) -> Mapping[str, Any]:
    """Load one file of `conf/` without resolving its defaults."""
    found: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
