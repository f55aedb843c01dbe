"""Hydra's exceptions as one-line errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from quantlab.config.launcher import PREFIX, LauncherConfig
from quantlab.config.parse import kind_of, nearest_key
from quantlab.util import quoting
from quantlab.util.console import COMMANDS
from quantlab.util.errors import ConfigError, did_you_mean, shortened
from quantlab.util.redact import HIDDEN


def explain(error: Exception, groups: Collection[str], arguments: Sequence[str]) -> str:
    """Reduce a Hydra error to one line with the nearest valid name.

    Args:
        error: the exception raised by Hydra.
        groups: names of the groups in `conf/`.
        arguments: the command line.
    """
    sweeps = not {"-m", "--multirun"}.isdisjoint(arguments)
    text = str(error).strip()
    first = one_line(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, option = _group(str(error.missing_cfg_file), groups)
        return f"{group}={option}: no such {group}{did_you_mean(Path(option).name, list(error.options))}"
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override), text.splitlines(), sweeps)
    unknown = re.search(r"Could not override '([^']*)'", text)
    if unknown:
        return f"{unknown[1] or repr('')}: no such key{_suggestion(unknown[1])}"
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", first):
        return f"{first}: to sweep over the values add -m{_quoting_hint(several[1])}"
    where = re.search(r"full_key: (\S+)", text)
    if where is None:
        return first
    given = next((argument for argument in arguments if argument.partition("=")[0] == where[1]), "")
    return f"{where[1]}: {first}{_quoting_hint(given, sweeps)}"


def check_text(arguments: Sequence[str]) -> None:
    """Refuse values of string keys that Hydra would parse as a number, list, etc.: `dataset.path=2024`.

    Raises:
        ConfigError: the message shows how to quote the argument.
    """
    for argument in arguments:
        if kind_of(argument.partition("=")[0]) != "text":
            continue
        try:
            [parsed] = OverridesParser.create().parse_overrides([argument])
        except HydraException:
            continue  # reported when Hydra parses all of them
        value = None if parsed.is_sweep_override() else parsed.value()
        if isinstance(value, bool | int | float | list | dict):
            raise ConfigError(f"{argument}: read as {shortened(value)}, which is not a string{_quoting_hint(argument)}")


def _quoting_hint(override: str, sweeps: bool = False) -> str:
    """`; …` with the value quoted for shell and Hydra; empty if the key does not take a string."""
    key, _, value = override.partition("=")
    kind = kind_of(key)
    if kind is None or not value or "://" in value:  # a secret may be in an address
        return ""
    if kind == "list":
        written = quoting.override(key, [item.strip() for item in value.strip("[]").split(",")])
    else:
        written = f"{key}=" + ",".join(map(quoting.hydra, value.split(",") if sweeps else [value]))
    return f"; to pass it literally, write {quoting.shell(written)}"


def usage_error(usage: str) -> str:
    """The error in the usage text printed by Hydra's argument parser."""
    wrong = usage.strip().rpartition("error: ")[2]
    unknown = wrong.removeprefix("unrecognized arguments: ")
    if unknown == wrong:
        return wrong
    if unknown.startswith("--root"):
        return f"{unknown}: the grid's folder is output_dir=DIR"
    return f"{unknown}: no such option; keys have no dashes, e.g. quant=hqq_int4 (quantlab run --help lists them)"


def one_line(error: Exception) -> str:
    """The first line of a message; for a YAML error, file, line and problem."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}:{error.problem_mark.line + 1}: {error.problem}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _group(missing: str, groups: Collection[str]) -> tuple[str, str]:
    """Group and option of a missing file: `model/openai/whisper-small` is an option of `model` that holds a slash."""
    first, _, rest = missing.partition("/")
    group, _, option = missing.rpartition("/")
    return (first, rest) if first in groups else (group, option)


def _unreadable(override: str, lines: Sequence[str], sweeps: bool) -> str:
    if override in COMMANDS:
        return f"{override}: the grid takes only key=value; to run this command: quantlab {override}"
    if "=" not in override:
        return f"{override}: expected key=value, e.g. quant=hqq_int4 (quantlab run --help lists the keys)"
    why = next((line for line in lines if not line.startswith(("Error parsing override", "See https"))), "")
    why = why.rpartition("': ")[2]  # after "HydraException while evaluating '…': "
    why = f" ({why})" if why and not why.startswith("Lexer") else ""
    shown = f"{override.partition('=')[0]}={HIDDEN}" if "://" in override else override  # a token may be in its path
    how = _quoting_hint(override, sweeps) or "; quote it whole, e.g. 'quant.skip=[\"*.k_proj\"]'"
    return f"{shown}: the value cannot be parsed{why}{how}"


def _suggestion(dotted: str) -> str:
    if not dotted.startswith(PREFIX):
        return nearest_key(dotted)
    if dotted.removeprefix(PREFIX) in LauncherConfig.model_fields:
        return " of this launcher: add hydra/launcher=slurm, or slurm_cpu"
    return nearest_key(dotted, LauncherConfig, PREFIX)
