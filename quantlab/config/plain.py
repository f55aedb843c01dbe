"""Options of groups that are read from their files instead of composed, since composing a point takes 0.1 s.

An option sets its section, the keys of its group: to its file on top of the group's defaults. That is all it does, and
all that the section depends on, if `conf/` is written as it was shipped (no file sets keys of another section or refers
to another's value) and the command line has no other key of the group, no experiment, no reference and no other
configuration. Otherwise options are composed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from quantlab.config.options import BASE, names, read
from quantlab.util.resources import shared_dir

_OTHER_FILES = ("--config-", "-cp", "-cn", "-cd", "hydra.searchpath")
_REFERENCE = re.compile(r"\$\{(?!oc\.env:|scratch_dir:)")


def plain_groups(arguments: Sequence[str], overrides: Iterable[str]) -> set[str]:
    """The groups whose options may be read from their files.

    Args:
        arguments: the command line.
        overrides: those of every point of the sweep, e.g. `quant=hqq_int4` and `seed=1`.
    """
    given = set(overrides)
    keys = {override.partition("=")[0].lstrip("+~") for override in given}
    if (
        "experiment" in keys
        or any("$" in override for override in given)  # a reference, as Hydra writes `$\{seed\}` here
        or any(argument.lstrip("+").startswith(_OTHER_FILES) for argument in arguments)
        or not _is_as_shipped(shared_dir("conf"))
    ):
        return set()
    keys_of = {re.split("[.@]", key)[0] for key in keys if not key.isidentifier()}
    return _groups(shared_dir("conf")) - keys_of


@functools.cache
def section(group: str, name: str) -> dict[str, Any] | None:
    """The keys that an option sets; None if they depend on more than its file and its group's defaults."""
    if name not in names(group):
        return None
    try:
        own: Any = OmegaConf.load(shared_dir("conf") / group / f"{name}.yaml")
        shared: Any = OmegaConf.load(shared_dir("conf") / BASE / f"{group}.yaml") if own.pop("defaults", None) else {}
        found: Any = OmegaConf.to_container(OmegaConf.merge(shared, own))
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, TypeError, AttributeError):
        return None  # Hydra says what is wrong
    return None if "${" in str(found) or "???" in str(found) else found


@functools.cache
def _is_as_shipped(conf: Path) -> bool:
    """Whether each file of `conf` sets its own section only, and refers to no other."""
    texts = {path: path.read_text(encoding="utf-8") for path in conf.rglob("*.y*ml")}
    if any("@package" in text or _REFERENCE.search(text) for text in texts.values()):
        return False
    options = {path: text for path, text in texts.items() if path.parent.name in _groups(conf)}
    if any(_defaults(text) not in ([], [_usual(path)]) for path, text in options.items()):
        return False
    main = read(conf / "config.yaml")
    chosen = {key: value for item in main["defaults"] if isinstance(item, dict) for key, value in item.items()}
    known = {"experiment", *_groups(conf)}
    return (
        chosen.pop("experiment", None) is None
        and all(key in known or key.startswith("override hydra/") for key in chosen)
        and not _groups(conf) & main.keys()
    )


def _defaults(text: str) -> list[str]:
    """The lines of a file that name other files."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if "defaults" in line]


def _usual(path: Path) -> str:
    """The line by which an option takes over the defaults of its group."""
    return f"defaults: [/{BASE}/{path.parent.name}@_here_, _self_]"


def _groups(conf: Path) -> set[str]:
    """Folders of options; those in `hydra` set keys of Hydra."""
    return {path.name for path in conf.iterdir() if path.is_dir()} - {"hydra", BASE}
