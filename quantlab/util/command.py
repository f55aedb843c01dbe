"""Commands built with click: a usage error is one line that names the nearest option, with exit code 2."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from quantlab.util.console import MISUSED, on_stderr, refuse, warn
from quantlab.util.errors import ConfigError, did_you_mean

PATH = click.Path(path_type=Path)
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def perform(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        command: the click command; its function returns the exit code.
        arguments: its arguments; None: those of this process.

    Returns:
        The exit code; 2 after a usage error, which is printed on stderr.
    """
    with on_stderr():
        return _perform(command, list(sys.argv[1:] if arguments is None else arguments))


def _perform(command: click.Command, given: list[str]) -> int:
    name = command.name if command.name == "quantlab" else f"quantlab {command.name}"
    try:
        with command.make_context(name, given) as context:
            code: int = command.invoke(context)
            return code
    except click.exceptions.Exit as leaving:  # after --help
        return leaving.exit_code
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else name
        warn(f"{_usage_line(error)} ({where} --help)")
        return MISUSED
    except ConfigError as error:
        return refuse(error)


def _usage_line(error: click.UsageError) -> str:
    """One line for a usage error, starting with the option concerned."""
    if isinstance(error, click.NoSuchOption):
        known = [name for item in _parameters(error) for name in item.opts if name.startswith("--")]
        return f"{error.option_name}: no such option{did_you_mean(error.option_name, known)}"
    if isinstance(error, click.BadParameter) and error.param:  # includes missing parameters
        return f"{_name(error.param)}: {error.message or 'required, but not given'}"
    return f"{error.message[0].lower()}{error.message[1:]}".rstrip(".")


def _parameters(error: click.UsageError) -> list[click.Parameter]:
    return error.ctx.command.get_params(error.ctx) if error.ctx else []


def _name(param: click.Parameter) -> str:
    return param.opts[0] if isinstance(param, click.Option) else param.human_readable_name


def example(line: str) -> str:
    """An example at the end of a command's help, not wrapped so that it can be copied."""
    return f"\b\nexample: {line}"


class OneOf(click.Choice[str]):
    """A choice of names; an unknown name gets a suggestion."""

    def __init__(self, what: str, names: Iterable[str]) -> None:
        super().__init__(list(names))
        self.what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name unchanged.

        Raises:
            BadParameter: it is not one of the choices.
        """
        if value not in self.choices:
            self.fail(f"no {self.what} {value!r}{did_you_mean(str(value), list(self.choices))}", param, ctx)
        return str(value)


def positive(text: str) -> float:
    """Parse a number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise click.BadParameter(f"{text}: a number above 0")
    return value


def not_negative(text: str) -> float:
    """Parse a number, 0 or more."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{text}: a number, 0 or more")
    return value


def at_least_one(text: str) -> int:
    """Parse a whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text}: a whole number, 1 or more")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number") from None
