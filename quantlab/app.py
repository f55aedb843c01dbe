"""The Hydra application: compose → validate → run cells → summary. The only module that knows Hydra and OmegaConf."""

from __future__ import annotations

import contextlib
import io
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
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quantlab import points as points_of
from quantlab.command import COMMANDS
from quantlab.commandline import MISUSED, warn
from quantlab.config import RunConfig
from quantlab.errors import ConfigError, did_you_mean
from quantlab.grid import run_grid
from quantlab.launcher import PREFIX, LauncherConfig, parse_launcher
from quantlab.parse import nearest_key, parse_grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the grid that the command line asks for.

    Returns:
        The exit code: 0, 1 if a cell failed, 2 if the configuration is wrong (nothing was run then).
    """
    try:
        given = sys.argv[1:] if arguments is None else arguments
        sweep = read(given)
        if not sweep.configs and asks_to_run(given):
            raise ConfigError(f"the sweep has no cell: a glob or a range of it is empty, in {' '.join(given)}")
        if not sweep.configs:
            return 0
        if sweep.launcher is None:
            return run_grid(sweep.configs)
        from quantlab.cluster.submit import run_on_slurm  # submitit, which a grid on this machine does not need

        return run_on_slurm(sweep.configs, sweep.launcher)
    except ConfigError as error:
        warn(str(error))
        return MISUSED


@dataclass(frozen=True)
class Sweep:
    """What a command line asks for, validated."""

    configs: list[RunConfig]  # empty after --help, --cfg and the like
    launcher: LauncherConfig | None  # None: this machine


def read(arguments: Sequence[str]) -> Sweep:
    """The cells that a command line asks for, and where they are to run.

    Raises:
        ConfigError: a name or a value is wrong; the message says which, and what is allowed.
    """
    points, launchers = _collected(arguments)
    if any(launcher != launchers[0] for launcher in launchers):
        raise ConfigError(f"{PREFIX}*: one launcher for all cells, it cannot be swept over")
    return Sweep(parse_grid(points), parse_launcher(launchers[0]) if launchers else None)


def compose(arguments: Sequence[str]) -> list[RunConfig]:
    """The cells that a command line asks for, validated; `["quant=hqq_int4"]` is one, `["-m", …]` a grid.

    Raises:
        ConfigError: a name or a value is wrong; the message says which, and what is allowed.
    """
    return parse_grid(_compose(arguments))


def _compose(arguments: Sequence[str], whole: bool = False) -> list[dict[str, Any]]:
    """Every point of the grid as a plain mapping, in Hydra's order; none after --help, --cfg and the like."""
    return _collected(arguments, whole)[0]


def _collected(arguments: Sequence[str], whole: bool = False) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every point of the grid, and beside it the settings of each launcher that was composed.

    Hydra's launcher is left nothing to run: the points are collected, so that all of them are validated before
    the first is measured, and so that a failing cell is a row and no exception.
    """
    points: list[dict[str, Any]] = []
    launchers: list[dict[str, Any]] = []
    sweep: list[points_of.Overrides] = []

    def collect(point: DictConfig) -> None:
        points.append(OmegaConf.to_container(point, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]
        launchers.append(OmegaConf.to_container(HydraConfig.get().launcher, resolve=True))  # type: ignore[arg-type]

    _register()
    with tempfile.TemporaryDirectory(prefix="quantlab-") as scratch, _thinned(sweep, whole):
        OmegaConf.register_new_resolver("scratch_dir", lambda: scratch, replace=True)
        try:
            application = hydra.main(version_base="1.3", config_path=str(shared_dir("conf")), config_name="config")(
                collect
            )
            _with_arguments(application, arguments)
        except ConfigError:
            raise
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_explain(error)) from None
        except (ValueError, TypeError, AssertionError, yaml.YAMLError) as error:  # Hydra's own, in places
            raise ConfigError(f"{' '.join(arguments)}: cannot be composed: {_one_line(error)}") from None
    if not sweep:
        return points, launchers
    few = points_of.needed(sweep, _values)
    every = points if whole else points_of.expanded(sweep, dict(zip(few, points, strict=True)), _values)
    return _collected(arguments, whole=True) if every is None else (every, launchers)


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
    sys.argv = [argv[0], *_as_hydra_takes_them(arguments)]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    said = io.StringIO()  # a usage of thirty lines where an option is wrong, and which job failed
    try:
        with contextlib.redirect_stderr(said):
            application()
    except SystemExit as leaving:
        if leaving.code != MISUSED:
            raise
        raise ConfigError(_misused(said.getvalue())) from None
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _as_hydra_takes_them(arguments: Sequence[str]) -> list[str]:
    """-m before the keys, not among them; and not at all where a configuration is shown, which is of one point."""
    sweeps = [argument for argument in arguments if argument in ("-m", "--multirun")]
    shows = any(argument.split("=")[0] in ("--cfg", "-c", "--info", "-i") for argument in arguments)
    return [*([] if shows else sweeps), *(argument for argument in arguments if argument not in sweeps)]


def _register() -> None:
    """Offer each file of experiments/ as an option of the group `experiment`."""
    for path in sorted(shared_dir("experiments").glob("*.yaml")):
        ConfigStore.instance().store(group="experiment", name=path.stem, node=OmegaConf.load(path), package="_global_")


def shared_dir(name: str) -> Path:
    """`conf` or `experiments`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def asks_to_run(arguments: Sequence[str]) -> bool:
    """Whether the command line is none of those that only show something."""
    shows = ("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")
    return not any(argument.split("=")[0] in shows for argument in arguments)


def _explain(error: Exception) -> str:
    """One line with the nearest valid name, out of Hydra's several."""
    text = str(error).strip()
    first = _one_line(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, option = _group(str(error.missing_cfg_file))
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


def _misused(usage: str) -> str:
    """Of the usage that Hydra's parser prints, what is wrong."""
    wrong = usage.strip().rpartition("error: ")[2]
    unknown = wrong.removeprefix("unrecognized arguments: ")
    if unknown == wrong:
        return wrong
    if unknown.startswith("--root"):
        return f"{unknown}: the grid's folder is output_dir=DIR"
    return f"{unknown}: no such option; keys have no dashes, e.g. quant=hqq_int4 (python -m quantlab --help lists them)"


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}:{error.problem_mark.line + 1}: {error.problem}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _group(missing: str) -> tuple[str, str]:
    """`model/openai/whisper-small` is an option of `model` with a slash in it; `hydra/launcher/slrum` is none."""
    groups = {path.name for path in shared_dir("conf").iterdir() if path.is_dir()} - {"hydra"}
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
    return f"{override}: no value that can be read{why}; quote it whole, e.g. 'quant.skip=[\"*.k_proj\"]'"


def _meant(dotted: str) -> str:
    if not dotted.startswith(PREFIX):
        return nearest_key(dotted)
    if dotted.removeprefix(PREFIX) in LauncherConfig.model_fields:
        return " of this launcher: add hydra/launcher=slurm, or slurm_cpu"
    return nearest_key(dotted, LauncherConfig, PREFIX)
