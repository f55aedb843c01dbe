"""`quantlab recommend`: the cell to deploy within limits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from quantlab.records import several
from quantlab.records.root_option import roots_option
from quantlab.report.recommend import (
    Limits,
    NotRecordedError,
    Recommendation,
    SeveralCorporaError,
    recommend,
    show,
)
from quantlab.util.command import HELP, OneOf, example, not_negative, perform, positive
from quantlab.util.console import MISUSED, NO, to_stdout, warn
from quantlab.util.entry import enter
from quantlab.util.memory import without_gc


@click.command(
    "recommend",
    context_settings=HELP,
    epilog=example("quantlab recommend --max-size-mb 100 --max-wer-increase 0.5 --device cpu")
    + "\n\n"
    + example("quantlab recommend --max-wer-increase 0.5 --measure quant=none,hqq_int4,hqq_int3"),
)
@click.option(
    "--max-wer-increase",
    type=not_negative,
    default=0.5,
    show_default=True,
    metavar="POINTS",
    help="Percentage points of WER above the fp32 baseline.",
)
@click.option(
    "--max-size-mb",
    type=positive,
    metavar="MB",
    help="Size of the weights, as in the table; a file can be larger (see docs/how-to/export.md). MB = 10^6 bytes.",
)
@click.option("--max-memory-mb", type=positive, metavar="MB", help="Peak memory during recognition.")
@click.option("--max-rtf", type=positive, metavar="RTF", help="Generation time / audio time.")
@click.option("--device", metavar="NAME", help="Only this device: cpu, cuda, mps, or the name of a bundle's machine.")
@click.option("--model", metavar="NAME", help="Only this model, by name or fingerprint.")
@click.option(
    "--dataset",
    metavar="NAME",
    help="Needed if several corpora are recorded: name, manifest file, or fingerprint.",
)
@click.option("--split", metavar="NAME", help="Limit the WER increase in this split instead of over all splits.")
@click.option("--measure", is_flag=True, help="Measure cells of the grid KEYS until the smallest is known.")
@roots_option()
@click.option(
    "--format", type=OneOf("format", ("table", "json")), default="table", show_default=True, help="Output format."
)
@click.option("--all", "everything", is_flag=True, help="List every cell, however many.")
@click.argument("keys", nargs=-1, metavar="[KEYS]")
@click.pass_context
def command(
    context: click.Context,
    keys: tuple[str, ...],
    measure: bool,
    roots: tuple[Path, ...],
    format: str,
    everything: bool,
    max_wer_increase: float,
    max_size_mb: float | None,
    max_memory_mb: float | None,
    max_rtf: float | None,
    device: str | None,
    model: str | None,
    dataset: str | None,
    split: str | None,
) -> int:
    """Choose the measured cell to deploy.

    This is the fastest cell within the limits, if the data show which one that is. A cell is within a limit of WER if
    the whole 95 % interval of its increase is.

    With --measure and the keys of a grid, cells are measured first, in order of size, until the smallest is known; a
    cell stops once it is known to be beyond the limit of WER. Device, model, corpus, splits and root are keys of the
    grid then (device=cpu), instead of options.

    Exit code: 0, 1 if nothing qualifies or nothing is recorded, 2 if the records hold several corpora or an option is
    wrong, 130 if the measurement was interrupted.
    """
    limits = Limits(
        max_size_mb=max_size_mb,
        max_wer_increase=max_wer_increase,
        max_rtf=max_rtf,
        max_memory_mb=max_memory_mb,
        device=device,
        model=model,
        dataset=dataset,
        split=split,
    )
    if measure:
        _check_keys(context, keys)
        from quantlab.grid.run import INTERRUPTED
        from quantlab.grid.search import search

        try:
            found = search(keys, limits)
        except KeyboardInterrupt:
            warn("interrupted; the same command goes on from here")
            return INTERRUPTED
    else:
        if keys:
            raise click.UsageError(f"{keys[0]}: keys are for --measure", context)
        with without_gc():
            chosen = _recorded(roots, limits)
        if isinstance(chosen, int):
            return chosen
        found = chosen
    with to_stdout():
        if format == "json":
            print(show.to_json(found))
        else:
            show.show(found, everything=everything)
    return 0 if found.best is not None else NO


def _check_keys(context: click.Context, keys: tuple[str, ...]) -> None:
    """Refuse options beside --measure that choose among records."""
    if not keys:
        raise click.UsageError("--measure: which cells? Name them, e.g. quant=none,hqq_int4,hqq_int3", context)
    for name, key in (("roots", "output_dir"), ("device", "device"), ("model", "model"), ("dataset", "dataset"),
                      ("split", "dataset.splits")):  # fmt: skip
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = "--root" if name == "roots" else f"--{name}"
            raise click.UsageError(f"{option}: beside --measure, set the key {key} instead", context)


def _recorded(roots: tuple[Path, ...], limits: Limits) -> Recommendation | int:
    """The recommendation from records, or the exit code if there is none, which is said."""
    output_dir = next((str(root) for root in roots if not root.is_file()), "mlruns")
    try:
        with several.below(roots) as root:
            return recommend(root, limits, output_dir)
    except NotRecordedError as error:
        below = " and ".join(map(str, roots))
        warn(f"{error.args[0]} (in {below}); measure some: quantlab -m quant=none,…")
        return NO
    except SeveralCorporaError as error:
        warn(str(error))
        return MISUSED


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
