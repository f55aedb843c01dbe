"""`quantlab` and `python -m quantlab`: the main command. Subcommands are imported when called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

import click
from click.shell_completion import shell_complete

from quantlab.cli import keys
from quantlab.util.command import HELP, perform
from quantlab.util.console import COMMANDS, SECTIONS
from quantlab.util.errors import did_you_mean

COMPLETE = "_QUANTLAB_COMPLETE"  # set by the shell's completion: bash_source, zsh_complete, …
_ELSEWHERE = ("report", "export", "bundle")  # commands defined in their own packages


class _Door(click.Group):
    """The command group; arguments that start with a key or an option of Hydra mean `run`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it."""
        if cmd_name not in COMMANDS:
            return None
        place = f"quantlab.{cmd_name}.__main__" if cmd_name in _ELSEWHERE else f"quantlab.cli.{cmd_name}"
        found: click.Command = import_module(place).command
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `run` if it was left out; without arguments it measures the default cell."""
        if not args and not ctx.resilient_parsing:
            args = ["run"]
        if args and args[0] not in (*COMMANDS, "--help", "-h", "--version"):
            if not _is_of_a_grid(args[0]) and not ctx.resilient_parsing:
                raise click.UsageError(f"no command {args[0]!r}{_suggestion(args[0])}", ctx)
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, then the configuration groups."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))
        keys.write_groups(formatter)
        formatter.write_paragraph()
        formatter.write_text("What each key does: quantlab run --help")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        """Commands, and keys of a grid."""
        return [*super().shell_complete(ctx, incomplete), *keys.completions(ctx, None, incomplete)]


def _is_of_a_grid(argument: str) -> bool:
    """Whether it is a key (`quant=none`, `~quant`, `+experiment=x`, the group `quant`) or an option (`-m`)."""
    return "=" in argument or argument[:1] in ("-", "+", "~", "") or argument in keys.groups()


def _suggestion(name: str) -> str:
    """A suggestion for an unknown command: an option of a group, or a misspelt command."""
    group = next((group for group, options in keys.groups().items() if name in options), None)
    return did_you_mean(name, list(COMMANDS)) if group is None else f"; did you mean {group}={name}?"


@click.group(
    "quantlab",
    cls=_Door,
    context_settings=HELP,
    subcommand_metavar="COMMAND | [-m] KEY=VALUE...",
    options_metavar="[--help] [--version]",
)
@click.version_option(message="%(prog)s %(version)s", package_name="quantlab", prog_name="quantlab")
def command() -> None:
    """Which quantization of this speech recogniser should I deploy, on this device?

    Without arguments it measures one cell, the default of every group, as quantlab run does.

    \b
      quantlab quant=hqq_int4
      quantlab -m quant=none,torch_int8,hqq_int4 dataset.limit=20
      quantlab report
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of quantlab, or a grid.

    Returns:
        The exit code of the command; 0 after the help, 2 for an unknown command.
    """
    if instruction := os.environ.get(COMPLETE):
        return shell_complete(command, {}, "quantlab", COMPLETE, instruction)
    return perform(command, arguments)
