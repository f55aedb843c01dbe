"""The Hydra application: compose → validate → run cells → summary. The only module that knows Hydra and OmegaConf."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quantlab import points as points_of
from quantlab.commandline import MISUSED, warn
from quantlab.config import RunConfig
from quantlab.errors import ConfigError, did_you_mean
from quantlab.grid import run_grid
from quantlab.parse import nearest_key, parse_grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the grid that the command line asks for.

    Returns:
        The exit code: 0, 1 if a cell failed, 2 if the configuration is wrong (nothing was run then).
    """
    try:
        configs = compose(sys.argv[1:] if arguments is None else arguments)
        return run_grid(configs) if configs else 0
    except ConfigError as error:
        warn(str(error))
        return MISUSED


def compose(arguments: Sequence[str]) -> list[RunConfig]:
    """The cells that a command line asks for, validated; `["quant=hqq_int4"]` is one, `["-m", …]` a grid.

    Raises:
        ConfigError: a name or a value is wrong; the message says which, and what is allowed.
    """
    return parse_grid(_compose(arguments))


def _compose(arguments: Sequence[str], whole: bool = False) -> list[dict[str, Any]]:
    """Every point of the grid as a plain mapping, in Hydra's order; none after --help, --cfg and the like.

    Hydra's launcher is left nothing to run: the points are collected, so that all of them are validated before
    the first is measured, and so that a failing cell is a row and no exception.
    """
    points: list[dict[str, Any]] = []
    sweep: list[points_of.Overrides] = []

    def collect(point: DictConfig) -> None:
        points.append(OmegaConf.to_container(point, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]

    _register()
    with tempfile.TemporaryDirectory(prefix="quantlab-") as scratch, _thinned(sweep, whole):
        OmegaConf.register_new_resolver("scratch_dir", lambda: scratch, replace=True)
        try:
            application = hydra.main(version_base="1.3", config_path=str(shared_dir("conf")), config_name="config")(
                collect
            )
            _with_arguments(application, arguments)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_explain(error)) from None
    if not sweep:
        return points
    few = points_of.needed(sweep, _values)
    every = points if whole else points_of.expanded(sweep, dict(zip(few, points, strict=True)), _values)
    return _compose(arguments, whole=True) if every is None else every


@contextlib.contextmanager
def _thinned(sweep: list[points_of.Overrides], whole: bool) -> Iterator[None]:
    """A block in which Hydra composes of a sweep only the points that the others follow from, and each once.

    Args:
        sweep: receives every point's overrides.
        whole: compose every point; still once, where Hydra would do it a first time to see whether it can.
    """

    def thin_out(sweeper: Sweeper, batch: list[Sequence[str]]) -> None:
        sweep.extend(tuple(overrides) for overrides in batch)
        if not whole:
            batch[:] = points_of.needed(sweep, _values)

    validate = Sweeper.validate_batch_is_legal
    Sweeper.validate_batch_is_legal = thin_out
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = validate


def _values(override: str) -> points_of.Changes | None:
    """What `section.key=value` or `key=value` sets; None for the choice of an option, which sets much."""
    key, _, value = override.partition("=")
    single = re.fullmatch(r"\w+(\.\w+)?", key) and not (shared_dir("conf") / key).is_dir()
    if not single or key in ("experiment", "only") or key.startswith("hydra.") or "${" in value:
        return None
    [parsed] = OverridesParser.create().parse_overrides([override])
    return {tuple(key.split(".")): parsed.value()}


def _with_arguments(application: Any, arguments: Sequence[str]) -> None:
    """Hydra reads sys.argv, and raises instead of printing a traceback only when told so by the environment."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        application()
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _register() -> None:
    """Offer each file of experiments/ as an option of the group `experiment`."""
    for path in sorted(shared_dir("experiments").glob("*.yaml")):
        ConfigStore.instance().store(group="experiment", name=path.stem, node=OmegaConf.load(path), package="_global_")


def shared_dir(name: str) -> Path:
    """`conf` or `experiments`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def _explain(error: Exception) -> str:
    """One line with the nearest valid name, out of Hydra's several."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option}: no such {group}{did_you_mean(option, list(error.options))}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {first}"
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        return f"{unknown[1]}: no such key{nearest_key(unknown[1])}"
    if text.startswith("Ambiguous value for argument"):
        return f"{first}: to sweep over the values add -m"
    return first
