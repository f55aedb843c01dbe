"""`python -m quantlab.sync`: every record below a folder into MLflow, once, however often and from wherever."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from quantlab import tracking
from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.records.root_option import add_root, no_records
from quantlab.util.address import Address
from quantlab.util.console import NO, Parser, tell, warn
from quantlab.util.entry import enter

_EXAMPLE = "python -m quantlab.sync --root mlruns --uri http://mlflow.example.org:5000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the records in.

    Returns:
        The exit code: 0 when every record is in MLflow; 1 if there are none, if some cannot be read or were refused,
        or if the server does not answer. A misuse of an option leaves through `SystemExit(2)`.
    """
    options = _parser().parse_args(arguments)
    if not storage.recorded(options.root):
        warn(no_records(options.root))
        return NO
    place = TrackingConfig(name="server" if options.uri else "local", uri=options.uri, experiment=options.experiment)
    try:
        found = tracking.sync(options.root, place, partial(_draw, options.root), _show_progress)
    except tracking.TrackingError as error:
        again = tracking.sync_command(options.root, place)
        warn(f"{error}; what is there stays, so run it again: {again}" if error.passes else str(error))
        return NO
    for problem in found.problems:
        warn(problem)
    tell(_said(found))
    for name, link in tracking.ui_links(options.root, place).items():
        tell(f"{name:8}{link}")
    return NO if found.problems else 0


def _said(found: tracking.Synced) -> str:
    there = found.records - found.logged
    closed = f"; {found.interrupted} interrupted runs closed" if found.interrupted else ""
    return f"{found.records} records: {found.logged} logged, {there} there before{closed}"


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {total} logged", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _draw(root: Path, cell_ids: Sequence[str]) -> tuple[str, Callable[[], Mapping[str, bytes]]]:
    """Table and plots of a sweep; imported here, as most calls have no sweep to show."""
    from quantlab.report.plots import figures
    from quantlab.report.summaries import of_records
    from quantlab.report.table import text

    records = storage.readable(root, cell_ids, on_unreadable=lambda why: None)  # said before
    cells = of_records(root, records, lambda why: None)
    return text(cells), partial(figures, cells)


def _uri(text: str) -> str:
    try:
        return Address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> Parser:
    parser = Parser(
        prog="python -m quantlab.sync",
        description="Bring every record into MLflow, once each: what is missing is logged, what a killed process left "
        "half is closed, and the second run of a record is deleted. Several machines may do so at the same time.",
        epilog=f"example: {_EXAMPLE}",
    )
    add_root(parser)
    parser.add_argument(
        "--uri",
        type=_uri,
        metavar="URI",
        help="an MLflow server (default: DIR/mlflow.db); user, password and token as MLFLOW_TRACKING_USERNAME, "
        "MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN",
    )
    parser.add_argument("--experiment", default="quantlab", metavar="NAME", help="of MLflow (default: %(default)s)")
    return parser


if __name__ == "__main__":
    enter(main)
