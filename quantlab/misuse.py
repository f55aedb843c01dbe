"""What a person did wrong on the command line or in a study of their own, in one line, out of what Hydra says of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import yaml
from hydra.errors import MissingConfigException, OverrideParseException

from quantlab.command import COMMANDS
from quantlab.errors import did_you_mean
from quantlab.launcher import PREFIX, LauncherConfig
from quantlab.parse import nearest_key
from quantlab.redact import HIDDEN


def explain(error: Exception, groups: Collection[str]) -> str:
    """One line with the nearest valid name, out of Hydra's several; `groups` are those of `conf/`."""
    text = str(error).strip()
    first = one_line(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, option = _group(str(error.missing_cfg_file), groups)
        return f"{group}={option}: no such {group}{did_you_mean(Path(option).name, list(error.options))}"
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override), text.splitlines())
    unknown = re.search(r"Could not override '([^']*)'", text)
    if unknown:
        return f"{unknown[1] or repr('')}: no such key{_meant(unknown[1])}"
    if text.startswith("Ambiguous value for argument"):
        return f"{first}: to sweep over the values add -m"
    where = re.search(r"full_key: (\S+)", text)
    return f"{where[1]}: {first}" if where else first


def misused(usage: str) -> str:
    """Of the usage that Hydra's parser prints, what is wrong."""
    wrong = usage.strip().rpartition("error: ")[2]
    unknown = wrong.removeprefix("unrecognized arguments: ")
    if unknown == wrong:
        return wrong
    if unknown.startswith("--root"):
        return f"{unknown}: the grid's folder is output_dir=DIR"
    return f"{unknown}: no such option; keys have no dashes, e.g. quant=hqq_int4 (python -m quantlab --help lists them)"


def one_line(error: Exception) -> str:
    """The first line of a message, or its place in the YAML that it is about."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}:{error.problem_mark.line + 1}: {error.problem}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _group(missing: str, groups: Collection[str]) -> tuple[str, str]:
    """`model/openai/whisper-small` is an option of `model` with a slash in it; `hydra/launcher/slrum` is none."""
    first, _, rest = missing.partition("/")
    group, _, option = missing.rpartition("/")
    return (first, rest) if first in groups else (group, option)


def _unreadable(override: str, lines: Sequence[str]) -> str:
    if override in COMMANDS:
        return f"{override}: the grid takes key=value; that command is: python -m quantlab.{override}"
    if "=" not in override:
        return f"{override}: expected key=value, e.g. quant=hqq_int4 (python -m quantlab --help lists the keys)"
    why = next((line for line in lines if not line.startswith(("Error parsing override", "See https"))), "")
    why = why.rpartition("': ")[2]  # after "HydraException while evaluating '…': "
    why = f" ({why})" if why and not why.startswith("Lexer") else ""
    shown = f"{override.partition('=')[0]}={HIDDEN}" if "://" in override else override  # a token may be in its path
    return f"{shown}: no value that can be read{why}; quote it whole, e.g. 'quant.skip=[\"*.k_proj\"]'"


def _meant(dotted: str) -> str:
    if not dotted.startswith(PREFIX):
        return nearest_key(dotted)
    if dotted.removeprefix(PREFIX) in LauncherConfig.model_fields:
        return " of this launcher: add hydra/launcher=slurm, or slurm_cpu"
    return nearest_key(dotted, LauncherConfig, PREFIX)
