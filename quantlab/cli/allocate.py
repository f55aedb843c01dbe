"""`quantlab allocate`: write a recipe, bits for each module within a budget of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import yaml

from quantlab.cli import keys
from quantlab.cli.keys import CONFIG_DIR, config_dir
from quantlab.config.allocate import AllocateConfig
from quantlab.util.command import HELP, example, perform
from quantlab.util.console import NO, libraries_silent, to_stdout, warn
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError, Unavailable

_QUANT = "gptq_int4"  # composed in place of the recipe, which does not exist yet: it has to be calibrated


class _WithKeys(click.Command):
    """A command whose help lists its own keys."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options, then the keys."""
        super().format_options(ctx, formatter)
        with formatter.section("Keys, KEY=VALUE"):
            formatter.write_dl(list(keys.described_of(AllocateConfig)), col_max=36)


@click.command(
    "allocate",
    cls=_WithKeys,
    context_settings=HELP | {"ignore_unknown_options": True},
    epilog=example(
        "quantlab allocate model=base calibration.source=manifest calibration.path=mine.jsonl budget_mb=110"
    ),
)
@config_dir
@keys.grid_arguments
def command(config_dir: str | None, arguments: tuple[str, ...]) -> int:
    """Choose how many bits each module gets, so that the model loses least within a size, and write it as a recipe.

    The loss of each module at 2, 3, 4 and 8 bit is found on the calibration data, and an integer program chooses the
    combination with the least sum. Model, device and calibration data are keys as of quantlab run; quant=recipe
    quant.path=FILE measures the result.

    Exit code: 0, 1 if the checkpoint or the audio is not here, 2 if a key is wrong or nothing fits the budget.
    """
    own, shared = _divided(arguments)
    wanted = _wanted(own)
    out = Path(wanted.out).expanduser()
    _check_writable(out, wanted)
    if not any(argument.startswith("calibration.source=") for argument in shared):
        raise ConfigError(
            "no calibration audio: set calibration.source=manifest calibration.path=FILE, or "
            "calibration.source=disjoint"
        )
    if given := next((argument for argument in shared if argument.split("=")[0] == "quant"), None):
        raise ConfigError(f"{given}: quantlab allocate writes a recipe, which quant=recipe reads: leave quant out")
    from quantlab.config.compose import compose

    shared = [*(() if config_dir is None else (CONFIG_DIR, config_dir)), *shared]
    configs = compose([*shared, f"quant={_QUANT}"])
    if len(configs) != 1:
        raise ConfigError(f"{len(configs)} combinations of keys: quantlab allocate takes one model at a time")
    with libraries_silent():
        from quantlab.allocation import find, show, write
        from quantlab.recogniser.fingerprints import resolve

    config = resolve(configs[0])
    try:
        found = find(config, wanted)
    except Unavailable as error:
        warn(str(error))
        return NO
    write(out, config, wanted, found)
    with to_stdout():
        show(out, shared, found)
    return 0


def _divided(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The command's own keys, and those of a grid; a key that is neither counts as its own, which names the nearest."""
    from quantlab.config.schema import RunConfig

    own: dict[str, str] = {}
    shared = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key.isidentifier() or key in {*RunConfig.model_fields, *keys.groups()}:
            shared.append(argument)
        elif key in own:
            raise ConfigError(f"{key} is given twice: {own[key]} and {value}")
        else:
            own[key] = value
    return own, shared


def _wanted(own: dict[str, str]) -> AllocateConfig:
    from quantlab.config.parse import parse

    texts = {key for key, field in AllocateConfig.model_fields.items() if field.annotation is str}
    values: dict[str, Any] = {key: value if key in texts else yaml.safe_load(value) for key, value in own.items()}
    return parse(AllocateConfig, values)


def _check_writable(out: Path, wanted: AllocateConfig) -> None:
    """Refuse a file that could not be written, before the model is loaded."""
    if out.exists():
        raise ConfigError(f"out={wanted.out} exists: remove it, or set out=FILE")
    if not out.parent.is_dir():
        raise ConfigError(f"out={wanted.out}: there is no folder {out.parent}: make it, or set out=FILE")


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
