"""`quantlab sync`: log every record below a folder to MLflow, exactly once even if run repeatedly or concurrently."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import click

from quantlab import tracking
from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.records.root_option import no_records, root_option
from quantlab.util.address import Address
from quantlab.util.command import HELP, example, perform
from quantlab.util.console import NO, tell, warn
from quantlab.util.counted import counted
from quantlab.util.entry import enter


def _uri(text: str) -> str:
    try:
        return Address(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    "sync", context_settings=HELP, epilog=example("quantlab sync --root mlruns --uri http://mlflow.example.org:5000")
)
@root_option()
@click.option(
    "--uri",
    type=_uri,
    metavar="URI",
    help="An MLflow server (default: DIR/mlflow.db); user, password and token as MLFLOW_TRACKING_USERNAME, "
    "MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN.",
)
@click.option("--experiment", default="quantlab", show_default=True, metavar="NAME", help="Of MLflow.")
def command(root: Path, uri: str | None, experiment: str) -> int:
    """Copy every record into MLflow, once each.

    Missing records are logged, runs that a killed process left open are closed, and second runs of a record are
    deleted. Several machines may do this at the same time.

    Exit code: 0 if every record is in MLflow; 1 if there are none, if some cannot be read or were refused, or if the
    server does not answer; 2 for a wrong option.
    """
    if not storage.recorded(root):
        warn(no_records(root))
        return NO
    place = TrackingConfig(name="server" if uri else "local", uri=uri, experiment=experiment)
    try:
        found = tracking.sync(root, place, partial(_draw, root), on_progress=_show_progress)
    except tracking.TrackingError as error:
        again = tracking.sync_command(root, place)
        warn(f"{error}; what is already logged is kept, so run it again: {again}" if error.passes else str(error))
        return NO
    for problem in found.problems:
        warn(problem)
    tell(_summary(found))
    for name, link in tracking.ui_links(place, found.experiment_id).items():
        tell(f"{name:8}{link}")
    return NO if found.problems else 0


def _summary(found: tracking.Synced) -> str:
    there = found.records - found.logged
    closed = f"; {counted(found.interrupted, 'interrupted run')} closed" if found.interrupted else ""
    return f"{counted(found.records, 'record')}: {found.logged} logged, {there} already there{closed}"


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} logged", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _draw(root: Path, cell_ids: Sequence[str]) -> tuple[str, Mapping[str, bytes]]:
    """Table and plots of a sweep; imported here, as most calls have no sweep to show."""
    from quantlab.report.plots import figures
    from quantlab.report.summaries import of_records
    from quantlab.report.table import text

    records = storage.readable(root, cell_ids, on_unreadable=lambda why: None)  # reported before
    cells = of_records(root, records, lambda why: None)
    return text(cells), figures(cells)


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
