"""Options of the configuration groups in `conf/`, read without Hydra."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from quantlab.util.resources import shared_dir

BASE = "base"  # the folder of conf/ with what the options of a group share; no group itself


def names(group: str) -> list[str]:
    """The options of a group, in alphabetical order."""
    return sorted(path.stem for path in (shared_dir("conf") / group).glob("*.yaml"))


@functools.cache
def option(group: str, name: str) -> Mapping[str, Any]:
    """The settings of an option, those that it shares with its group included."""
    own = dict(read(shared_dir("conf") / group / f"{name}.yaml"))
    shared = read(shared_dir("conf") / BASE / f"{group}.yaml") if own.pop("defaults", None) else {}
    return {**shared, **own}


@functools.cache
def read(path: Path) -> Mapping[str, Any]:
    """A file of `conf/` as it stands."""
    found: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
