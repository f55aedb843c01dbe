"""Hydra composition: command line, `conf/` and `experiments/` become one plain mapping per cell.

Only this module, `hydra_errors.py` and `plain.py` import Hydra and OmegaConf.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from quantlab.config import hydra_errors
from quantlab.config import sweep as points_of
from quantlab.config.options import BASE
from quantlab.config.plain import plain_groups, section
from quantlab.util.address import Address
from quantlab.util.console import MISUSED, to_stdout
from quantlab.util.errors import ConfigError
from quantlab.util.progress import announce
from quantlab.util.redact import is_secret, redact
from quantlab.util.resources import shared_dir

CONFIG = "config"  # the file of conf/ with the defaults of all groups
_KEEPS_NOTHING = ("hydra.output_subdir=null", "hydra.sweep.dir=${scratch_dir:}")  # overrides any experiment


@dataclass(frozen=True)
class Composed:
    """A command line as plain mappings; empty after --help, --cfg and the like."""

    points: list[dict[str, Any]]  # of the grid, in Hydra's order
    launchers: list[dict[str, Any]]  # settings of each composed point; one, unless they were swept over


def refuse_repeated(arguments: Sequence[str]) -> None:
    """Refuse a key that is given twice.

    Raises:
        ConfigError: the message names the key and its values.
    """
    hydra_errors.refuse_repeated(arguments, _groups())


def composed(arguments: Sequence[str], whole: bool = False) -> Composed:
    """Compose every point of the grid on a command line.

    Args:
        arguments: as Hydra takes them.
        whole: compose every point, even those that can be derived from others (`quantlab.config.sweep`).

    Raises:
        ConfigError: a name or a value is wrong; the message says which, and what is allowed.

    Hydra's launcher runs nothing: the points are collected, so that all of them are validated before
    the first is measured, and so that a failing cell becomes a row instead of an exception.
    """
    points: list[dict[str, Any]] = []
    launchers: list[dict[str, Any]] = []
    sweep: list[points_of.Overrides] = []

    def collect(point: DictConfig) -> None:
        _refuse_merged(point)
        points.append(OmegaConf.to_container(point, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
        launchers.append(OmegaConf.to_container(HydraConfig.get().launcher, resolve=True))  # type: ignore[arg-type]

    if not whole:
        announce(arguments)
    _register()
    for given in (item.partition("=")[2] for item in arguments if item.startswith("tracking.uri=")):
        with contextlib.suppress(ValueError):
            Address(given.strip("'\""))  # registers it for redaction before Hydra can print it
    hydra_errors.check_arguments(arguments, _groups())
    with tempfile.TemporaryDirectory(prefix="quantlab-") as scratch, _thinned(arguments, sweep, whole):
        OmegaConf.register_new_resolver("scratch_dir", lambda: scratch, replace=True)
        OmegaConf.register_new_resolver("oc.env", _from_environment, replace=True)
        try:
            application = hydra.main(version_base="1.3", config_path=str(shared_dir("conf")), config_name=CONFIG)(
                collect
            )
            _with_arguments(application, arguments)
        except ConfigError:
            raise
        except (HydraException, OmegaConfBaseException) as error:
            cause = error.__cause__
            raise (
                cause
                if isinstance(cause, ConfigError)
                else ConfigError(hydra_errors.explain(error, _groups(), arguments))
            ) from None
        except (ValueError, TypeError, AssertionError, yaml.YAMLError) as error:  # Hydra raises these too
            raise ConfigError(f"{' '.join(arguments)}: cannot be composed: {hydra_errors.one_line(error)}") from None
    if not sweep:
        return Composed(points, launchers)
    whole = whole or _refers(sweep)
    values = _effects(arguments, sweep)
    few = points_of.needed(sweep, values)
    every = points if whole else points_of.expanded(sweep, dict(zip(few, points, strict=True)), values)
    return composed(arguments, whole=True) if every is None else Composed(every, launchers)


def _refuse_merged(point: DictConfig) -> None:
    """Refuse a list of options in the `defaults` of a file; on the command line it was refused before.

    Hydra merges the options of a list, the last one on top, and leaves the group out of its choices.
    """
    about = HydraConfig.get()
    merged = [group for group in _groups() if group in point and group not in about.runtime.choices]
    if merged and about.job.config_name == CONFIG:  # another configuration may hold its groups itself
        group = min(merged)
        raise ConfigError(
            f"{group}: a list of options in the `defaults` of a file; choose one, or sweep over them with "
            f"`{group}: NAME,NAME` in hydra.sweeper.params"
        )


@contextlib.contextmanager
def _thinned(arguments: Sequence[str], sweep: list[points_of.Overrides], whole: bool) -> Iterator[None]:
    """Within the block, Hydra composes only the points of a sweep from which the others are derived, each once.

    Args:
        arguments: the command line.
        sweep: is filled with the overrides of every point.
        whole: compose every point; still only once, where Hydra would compose each a first time as a check.
    """
    terminal = sys.stderr  # Hydra's own output is captured

    def thin_out(sweeper: Sweeper, batch: list[Sequence[str]]) -> None:
        Path(sweeper.config.hydra.sweep.dir, "multirun.yaml").unlink(missing_ok=True)  # holds every override
        sweep.extend(tuple(overrides) for overrides in batch)
        if sweep and not whole and not _refers(sweep):
            with contextlib.redirect_stderr(terminal):
                batch[:] = points_of.needed(sweep, _effects(arguments, sweep))

    validate = Sweeper.validate_batch_is_legal
    Sweeper.validate_batch_is_legal = thin_out
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = validate


def _refers(sweep: Sequence[points_of.Overrides]) -> bool:
    """Whether a value of an axis refers to another key (written `$\\{seed\\}` here), so that each point is its own."""
    columns = (dict.fromkeys(column) for column in zip(*sweep, strict=True))
    return any("$" in override for column in columns if len(column) > 1 for override in column)


def _effects(arguments: Sequence[str], sweep: Sequence[points_of.Overrides]) -> points_of.Values:
    """What an override changes, as far as that is known without composing it."""
    overrides = dict.fromkeys(itertools.chain.from_iterable(sweep))
    return functools.partial(_values, plain=frozenset(plain_groups(arguments, overrides)))


@functools.cache
def _values(override: str, plain: frozenset[str] = frozenset()) -> points_of.Changes | None:
    """The values set by `section.key=value` or `key=value`, or the section set by an option of a plain group."""
    key, _, value = override.partition("=")
    if key in plain:
        found = section(key, value)
        return None if found is None else {(key,): found}
    single = re.fullmatch(r"\w+(\.\w+)?", key) and key not in _groups()
    if not single or key in ("experiment", "only") or key.startswith("hydra.") or "$" in value:
        return None
    [parsed] = OverridesParser.create().parse_overrides([override])
    return {tuple(key.split(".")): parsed.value()}


def _with_arguments(application: Any, arguments: Sequence[str]) -> None:
    """Run Hydra on these arguments. It reads sys.argv, and raises its errors only if HYDRA_FULL_ERROR is set."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *_reordered(arguments)]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    printed = io.StringIO()  # Hydra's usage text for a wrong option, and its note on the failed job
    shown = io.StringIO()  # output of --cfg and --help
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(shown):
            application()
    except SystemExit as leaving:
        if leaving.code != MISUSED:
            raise
        raise ConfigError(hydra_errors.usage_error(printed.getvalue())) from None
    finally:
        with to_stdout():
            sys.stdout.write(redact(shown.getvalue()))
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _reordered(arguments: Sequence[str]) -> list[str]:
    """Move -m before the keys; drop it where a configuration is shown, since Hydra shows a single point."""
    sweeps = [argument for argument in arguments if argument in ("-m", "--multirun")]
    others = [argument for argument in arguments if argument not in sweeps]
    if any(argument.split("=")[0] in ("--cfg", "-c", "--info", "-i") for argument in arguments):
        return others
    keys = [place for place, argument in enumerate(others, 1) if "=" in argument and not argument.startswith("-")]
    last = keys[-1] if keys else len(others)  # the last flag wins
    return [*sweeps, *others[:last], *_KEEPS_NOTHING, *others[last:]]


def _from_environment(name: str, *default: Any, _node_: Any) -> Any:
    """Resolve `${oc.env:NAME}`; refuse names of secrets, which must not enter a setting."""
    key = _node_._get_full_key(None)
    if is_secret(name) and key != "tracking.uri":
        raise ConfigError(f"{key}: {name} is a secret by its name, but settings are stored and printed: leave it out")
    return oc.env(name, *default)


def _register() -> None:
    """Register each file of experiments/ as an option of the group `experiment`."""
    for path in sorted(shared_dir("experiments").glob("*.yaml")):
        ConfigStore.instance().store(group="experiment", name=path.stem, node=OmegaConf.load(path), package="_global_")


def _groups() -> set[str]:
    """The groups in `conf/`, without `hydra` (options of Hydra's own groups) and BASE (no options)."""
    return {path.name for path in shared_dir("conf").iterdir() if path.is_dir()} - {"hydra", BASE}
