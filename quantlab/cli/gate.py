"""`quantlab gate`: is a model, a version or a checkpoint worse than what a baseline has?"""

from __future__ import annotations

import lzma
import sys
import tarfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from quantlab.analysis.regression.judge import Judged, Limits, judge, worst
from quantlab.cli.baseline import packed
from quantlab.records import bundle, several, storage
from quantlab.records.asked_for import ids_of
from quantlab.records.root_option import no_records, roots_option
from quantlab.report.regression.formats import FORMATS, markdown
from quantlab.report.regression.junit import junit
from quantlab.util.command import HELP, PATH, OneOf, example, perform, positive
from quantlab.util.console import MISUSED, NO, to_stdout, warn
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError
from quantlab.util.memory import without_gc

CANNOT_TELL = 3  # exit code
CODES = {"pass": 0, "fail": NO, "cannot tell": CANNOT_TELL}


@click.command(
    "gate",
    context_settings=HELP,
    epilog=example("quantlab gate --baseline baseline.json.gz --margin 0.5 --junit gate.xml"),
)
@click.option(
    "--baseline", type=PATH, required=True, metavar="FILE", help="Made by quantlab baseline; or a folder of records."
)
@click.option(
    "--margin",
    type=positive,
    default=0.5,
    show_default=True,
    metavar="POINTS",
    help="Loss that is tolerated, percentage points of WER over all splits.",
)
@click.option("--max-size", type=positive, metavar="MB", help="Largest size of the weights. MB = 10^6 bytes.")
@click.option(
    "--max-slowdown",
    type=positive,
    metavar="RATIO",
    help="Largest time / time of the baseline; judged only on a machine like the baseline's.",
)
@click.option(
    "--cell",
    "cells",
    multiple=True,
    metavar="CELL",
    help="Compare with this cell only, an id or label; may be given several times. A single one may have another "
    "quantizer than the single cell of the baseline.",
)
@roots_option()
@click.option("--junit", "xml", type=PATH, metavar="FILE", help="Also write JUnit XML.")
@click.option("--markdown", "pull_request", type=PATH, metavar="FILE", help="Also write Markdown for a pull request.")
@click.option("--format", type=OneOf("format", FORMATS), default="text", show_default=True, help="Output format.")
@without_gc()
def command(
    baseline: Path,
    margin: float,
    max_size: float | None,
    max_slowdown: float | None,
    cells: tuple[str, ...],
    roots: tuple[Path, ...],
    xml: Path | None,
    pull_request: Path | None,
    format: str,
) -> int:
    """Compare cells with a baseline, on the same utterances: is one worse than it was?

    Each cell of the baseline is compared with the cell of the same quantizer and corpus, whatever checkpoint, versions
    or settings changed. Accuracy passes if a loss of the margin is excluded (95 % interval); it fails if it does not
    pass and a loss is shown (one-sided paired test, 5 % over all cells). A better cell never fails.

    Exit code: 0 if all pass; 1 if one fails, also if its status is not ok; 2 if a file cannot be read or written or an
    option is wrong; 3 if it cannot be told: too few data, not measured again, other utterances.
    """
    limits = Limits(margin, max_size, max_slowdown)
    before = _baseline(baseline)
    with several.below(roots) as root:
        found = _judged(before, root, cells, limits)
        if not storage.recorded(root):
            warn(no_records(*roots))
    for path, content in ((xml, junit(found, limits)), (pull_request, markdown(found, limits).encode())):
        try:
            if path is not None:
                path.write_bytes(content)
        except OSError as error:
            warn(f"{path} cannot be written: {error.strerror}")
            return MISUSED
    with to_stdout():
        sys.stdout.write(FORMATS[format](found, limits))
    return CODES[worst([item.outcome for item in found])]


def _judged(before: Sequence[bundle.Packed], root: Path, cells: tuple[str, ...], limits: Limits) -> list[Judged]:
    ids = ids_of(root, cells) or storage.recorded(root)
    records = storage.readable(root, ids, on_unreadable=warn)
    return judge(before, root, records, limits, any_quantizer=len(cells) == len(before) == 1)


def _baseline(path: Path) -> Sequence[bundle.Packed]:
    """The cells of a bundle, or of a folder or archive of records.

    Raises:
        ConfigError: it is none of these, or none of its cells was measured.
    """
    if path.is_file() and not _is_archive(path):
        return bundle.read(path).cells
    if not path.exists():
        raise ConfigError(f"--baseline {path}: no such file or folder; make one: quantlab baseline --out {path}")
    with several.below([path]) as root:
        found = packed(root)
    if not found:
        raise ConfigError(f"--baseline {path}: no measured cell with text in it")
    return found


def _is_archive(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):  # damaged: `bundle.read` says so
        return False


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
