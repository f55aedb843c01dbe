"""Hydra's exceptions as one-line errors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from quantlab.config.key_names import KEYS, SECTIONS, kind_of, nearest_key
from quantlab.config.launcher import PREFIX, LauncherConfig
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
        return " ".join(map(_no_such_key, dict.fromkeys([unknown[1], *_unknown_keys(arguments, groups)])))
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", first):
        return f"{first}: to sweep over the values add -m{_quoting_hint(several[1])}"
    where = re.search(r"full_key: (\S+)", text)
    if where is None:
        return first
    given = next((argument for argument in arguments if argument.partition("=")[0] == where[1]), "")
    return f"{where[1]}: {first}{_quoting_hint(given, sweeps)}"


def check_arguments(arguments: Sequence[str], groups: Collection[str]) -> None:
    """Refuse arguments that Hydra would accept with another meaning than the one that was probably intended.

    Raises:
        ConfigError: a list stands where one value belongs, a space follows a comma, or the value of a string key
            (`dataset.path=2024`) would be parsed as a number, list, etc.
    """
    _refuse_spaces(arguments)
    for argument in arguments:
        try:
            [parsed] = OverridesParser.create().parse_overrides([argument])
        except HydraException:
            continue  # reported when Hydra parses all of them
        key = _key(argument)
        if takes_one_value(key, groups) and any(isinstance(value, list) for value in _values(parsed)):
            raise ConfigError(_list_for_one(argument, key, list(_flat(_values(parsed)))))
        value = None if parsed.is_sweep_override() else parsed.value()
        if kind_of(key) == "text" and isinstance(value, bool | int | float | dict):
            raise ConfigError(f"{argument}: read as {shortened(value)}, which is not a string{_quoting_hint(argument)}")


def takes_one_value(key: str, groups: Collection[str]) -> bool:
    """Whether a key is a group with one option at a time, or takes a single value."""
    return key in groups or key in ("experiment", "hydra/launcher") or (key in KEYS and kind_of(key) != "list")


def refuse_repeated(arguments: Sequence[str], groups: Collection[str]) -> None:
    """Refuse a key that is given twice: Hydra takes the last value, and of an option its last argument.

    Raises:
        ConfigError: the message names the key and its values.
    """
    given = [_key(item) for item in arguments if "=" in item and not item.startswith(("-", "~"))]
    given += [item.partition("=")[0] for item in arguments if item.startswith("--config-")]
    for key, times in Counter(given).items():
        values = [item.partition("=")[2] for item in arguments if _key(item) == key]
        if times > 1 and (
            key not in {*KEYS, *groups} or any("://" in value for value in values)
        ):  # a secret may be in it
            raise ConfigError(f"{key}: given {times} times; keep one")
        if times > 1:
            both = quoting.shell(f"{key}={','.join(values)}")
            raise ConfigError(f"{key}: given {times} times, as {' and '.join(values)}; keep one, or sweep: -m {both}")


def _refuse_spaces(arguments: Sequence[str]) -> None:
    """Refuse `quant=none, bnb_nf4`, which a shell splits into two arguments."""
    for place, argument in enumerate(arguments):
        pieces = [argument]
        for item in arguments[place + 1 :]:
            if "=" in item or item.startswith("-") or not (pieces[-1].endswith(",") or item.startswith(",")):
                break
            pieces.append(item)
        if len(pieces) > 1 and "=" in argument:
            raise ConfigError(f"{' '.join(pieces)}: a space beside a comma; write -m {''.join(pieces)}")


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~")


def _values(parsed: Override) -> list[Any]:
    """The value of an override, or all values of a comma list."""
    value: Any = parsed.value()
    return list(getattr(value, "list", [value]))  # a glob and a range have no list


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _list_for_one(argument: str, key: str, values: Sequence[Any]) -> str:
    """The message for a list in brackets where one value belongs."""
    what = "a single value" if key in KEYS else "one option"
    written = quoting.shell(f"{key}={','.join(map(quoting.hydra, values))}")
    ways = {0: "", 1: f"; write {written}"}.get(len(values), f"; to sweep over them, write -m {written}")
    return f"{argument}: {key} takes {what}, not a list in brackets{ways}{_quoting_hint(argument)}"


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
    why = "" if why.startswith(_OF_THE_PARSER) else why
    if re.search(r"=,|,,|,$", override):
        why = "a value is missing beside a comma"
    shown = f"{override.partition('=')[0]}={HIDDEN}" if "://" in override else override  # a token may be in its path
    how = _quoting_hint(override, sweeps) or "; quote it whole, e.g. 'quant.skip=[\"*.k_proj\"]'"
    return f"{shown}: the value cannot be parsed{why and f' ({why})'}{how}"


# How the errors of Hydra's parser generator begin, whose text helps nobody who does not know its grammar.
_OF_THE_PARSER = ("Lexer", "no viable alternative", "mismatched input", "extraneous input", "missing ", "token recogn")


def _unknown_keys(arguments: Sequence[str], groups: Collection[str]) -> list[str]:
    """The keys on a command line that do not exist; Hydra reports the first only."""
    known = {*KEYS, *SECTIONS, *groups, "experiment", "only"}
    free = (PREFIX, "hydra", "dataset.hub_splits.")  # the names of splits are free
    given = [_key(item) for item in arguments if "=" in item and not item.startswith("-")]
    return [key for key in given if key not in known and not key.startswith(free)]


def _no_such_key(key: str) -> str:
    return f"{key or repr('')}: no such key{_suggestion(key)}"


def _suggestion(dotted: str) -> str:
    if not dotted.startswith(PREFIX):
        return nearest_key(dotted)
    if dotted.removeprefix(PREFIX) in LauncherConfig.model_fields:
        return " of this launcher: add hydra/launcher=slurm, or slurm_cpu"
    return nearest_key(dotted, LauncherConfig, PREFIX)
