"""`python -m quantlab.rescore`: every score again, from the raw hypotheses, by another normaliser or scorer.

No model is loaded and nothing is decoded. The records that are read stay as they are.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from quantlab.records import storage
from quantlab.records.figures import IMPOSSIBLE, split_result
from quantlab.records.root_option import PACKED, add_root, no_records, records_below
from quantlab.records.schema import CellResult
from quantlab.report import __main__ as report
from quantlab.scoring.normalise import NORMALISERS, Normaliser
from quantlab.scoring.score import SCORERS, Scorer, Scoring, recount
from quantlab.util.console import MISUSED, NO, Parser, one_of, tell, warn
from quantlab.util.entry import enter

_EXAMPLE = "python -m quantlab.rescore --root mlruns --scorer kaldialign_compounds"


class SameFolderError(ValueError):
    """The output is the root itself, whose records must stay as they are."""


def rescore(
    root: str | Path, normaliser: Normaliser | None = None, scorer: Scorer | None = None
) -> Iterator[CellResult]:
    """Every record below `root`, scored in another way; what did not end well or has no text comes as it is.

    What is None stays that of each record.

    A record that cannot be read is left out, and said on stderr.
    """
    for cell_id in storage.recorded(root):
        try:
            result = _read(root, cell_id)
            scored = None if result is None else _rescored(result, normaliser, scorer)
        except (OSError, *IMPOSSIBLE) as error:
            warn(f"cell {cell_id} cannot be read, so it is not rescored: {error}")
        else:
            if scored is not None:
                yield scored


def write(
    root: str | Path, output: str | Path, normaliser: Normaliser | None = None, scorer: Scorer | None = None
) -> int:
    """Store the rescored records below `output`, complete, so that report, recommend and verify can read them.

    Returns:
        How many there are.

    Raises:
        SameFolderError: `output` is `root`.
    """
    if Path(output).resolve() == Path(root).resolve():
        raise SameFolderError(f"--output {output} is the root itself, whose records stay as they are; name another")
    return _store(output, rescore(root, normaliser, scorer))


def _store(output: str | Path, results: Iterable[CellResult]) -> int:
    return len([storage.write(output, result) for result in results])


def _read(root: str | Path, cell_id: str) -> CellResult | None:
    found = storage.read(root, cell_id)
    if found is None:
        return None
    utterances = tuple(storage.read_utterances(root, cell_id))
    batches = tuple(storage.read_batches(root, cell_id))
    folder = storage.cells_dir(root) / cell_id
    if found.digests and found.digests != storage.digests(folder):
        raise ValueError(
            f"the raw files in {folder} are not those that were written; python -m quantlab.verify says more"
        )
    return CellResult(record=found, utterances=utterances, batches=batches)


def _rescored(result: CellResult, normaliser: Normaliser | None, scorer: Scorer | None) -> CellResult:
    found = result.record
    scoring = replace(
        Scoring.of_language(found.setting("dataset.language") or "en"),
        normaliser=normaliser or found.normaliser,
        scorer=scorer or found.scorer,
    )
    utterances = tuple(recount(item, scoring) for item in result.utterances)
    splits = {
        name: split_result(
            [item for item in utterances if item.split == name],
            [item for item in result.batches if item.split == name],
        )
        for name in found.splits
    }
    how = {"normaliser": scoring.normaliser, "error_unit": scoring.unit, "scorer": scoring.scorer}
    changed = found.model_copy(update=how | {"splits": splits})
    return result.model_copy(update={"record": changed, "utterances": utterances})


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report of the rescored cells, or store them.

    Returns:
        The exit code: 0, 1 if there are no records, 2 if the output is the root or cannot be written. A misuse of an
        option leaves through `SystemExit(2)`.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if not _asked(options):
        parser.error("nothing to change: give --normaliser, --scorer, or both")
    with records_below(options.root) as root:
        return _report(options, root) if options.output is None else _kept(options, root)


def _kept(options: argparse.Namespace, root: Path) -> int:
    """Of records that are stored."""
    try:
        count = write(root, options.output, options.normaliser, options.scorer)
    except OSError as error:
        warn(f"{error.filename or options.output} cannot be written: {error.strerror}; name another folder")
        return MISUSED
    except SameFolderError as error:
        warn(str(error))
        return MISUSED
    if not count:
        return _nothing(options.root)
    how = f"python -m quantlab.report --root {options.output}"
    tell(f"{count} records scored by {_asked(options)}: {how}")
    return 0


def _report(options: argparse.Namespace, root: Path) -> int:
    """Of records that are forgotten again."""
    with tempfile.TemporaryDirectory(prefix="quantlab-rescore-") as folder:
        if not _store(folder, rescore(root, options.normaliser, options.scorer)):
            return _nothing(options.root)
        return report.main(["--root", folder, "--format", options.format])


def _asked(options: argparse.Namespace) -> str:
    """What was asked for, as `normaliser none, scorer jiwer`."""
    asked = {"normaliser": options.normaliser, "scorer": options.scorer}
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)


def _nothing(root: Path) -> int:
    warn(no_records(root))
    return NO


def _parser() -> Parser:
    parser = Parser(
        prog="python -m quantlab.rescore",
        description="Score the recorded hypotheses again by another text normaliser or scorer, without inference; what "
        "is not given stays that of each record. whisper: "
        "Whisper's as published, English with numbers and spellings; whisper_marks: the same, but vowel signs and "
        "other marks stay; basic: lower case, no punctuation; none: the text as it is. "
        "jiwer: plain edit distance; kaldialign_compounds: as the Open ASR Leaderboard since June 2026, words that are "
        "written apart or together are the same. CER is jiwer's by either.",
        epilog=f"example: {_EXAMPLE}",
    )
    add_root(parser, more=f"{PACKED}; it stays as it is")
    parser.add_argument("--normaliser", type=one_of("normaliser", NORMALISERS), metavar="|".join(NORMALISERS))
    parser.add_argument("--scorer", type=one_of("scorer", SCORERS), metavar="|".join(SCORERS))
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="store full records here instead of printing a report"
    )
    parser.add_argument(
        "--format",
        type=one_of("format", report.FORMATS),
        default="table",
        metavar="|".join(report.FORMATS),
        help="of the report (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    enter(main)
