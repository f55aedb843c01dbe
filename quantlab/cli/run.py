"""`quantlab run`, or `quantlab` with keys: validate a whole grid, then measure it here or on a cluster.

Arguments are in Hydra's syntax and passed on unchanged. Slow imports are local, as `--help` does not need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from quantlab.cli import keys
from quantlab.util.command import HELP, example, perform
from quantlab.util.console import tell, to_stdout
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError

DRY_RUN = "--dry-run"
# Hydra's options that print something instead of running.
SHOWS = ("--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")


class _AsWritten(click.Command):
    """A command whose options are declared only for help and completion; click does not parse the arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Pass on all arguments unchanged except --help and --version."""
        ctx.params["arguments"] = tuple(args)
        if not ctx.resilient_parsing:
            if {"-h", "--help"} & set(args):
                with to_stdout():
                    click.echo(self.get_help(ctx))
                ctx.exit()
            if "--version" in args:
                with to_stdout():
                    click.echo(keys.version())
                ctx.exit()
        return []

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options, then the groups and keys."""
        super().format_options(ctx, formatter)
        keys.write_groups(formatter)
        keys.write_keys(formatter)


@click.command("run", cls=_AsWritten, context_settings=HELP, epilog=example("quantlab -m quant=none,torch_int8"))
@click.option("-m", "--multirun", is_flag=True, help="Sweep: every combination of comma lists is a cell.")
@click.option(DRY_RUN, is_flag=True, help="List the cells with their ids, and measure nothing.")
@click.option("--cfg", type=click.Choice(["job", "hydra", "all"]), help="Print the configuration, and measure nothing.")
@keys.config_dir
@click.option("--version", is_flag=True, help="Print the version.")
@keys.grid_arguments
def command(arguments: tuple[str, ...]) -> int:
    """Measure a grid of cells: choose one option of each group, or sweep with -m and commas.

    A group that is left out has its default option; without arguments that is one cell.

    Each cell is quantized, verified and measured in its own process, and recorded in output_dir. Recorded cells are
    not measured again.

    Exit code: 0, 1 if a cell failed, 2 if the configuration is wrong (nothing is measured then), 130 if interrupted.
    """
    from quantlab.config.compose import read

    given = [argument for argument in arguments if argument != DRY_RUN]
    sweep = read(given)
    if not sweep.configs and not _only_prints(given):
        raise ConfigError(f"the sweep has no cell: a glob or range is empty, in {' '.join(given)}")
    if not sweep.configs:
        return 0
    if DRY_RUN in arguments:
        from quantlab.grid.preview import preview

        with to_stdout():
            for line in preview(sweep.configs, sweep.launcher):
                tell(line)
        return 0
    if sweep.launcher is None:
        from quantlab.grid.run import run_grid

        return run_grid(sweep.configs)
    from quantlab.grid.slurm.submit import run_on_slurm

    return run_on_slurm(sweep.configs, sweep.launcher)


def _only_prints(arguments: Sequence[str]) -> bool:
    """Whether the command line only prints something."""
    return any(argument.split("=")[0] in SHOWS for argument in arguments)


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
