"""`quantlab rescore`: score the raw hypotheses again with another normaliser or scorer.

No model is loaded and nothing is decoded. The source records are not changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from quantlab.records import several, storage
from quantlab.records.figures import IMPOSSIBLE, split_result
from quantlab.records.root_option import no_records, roots_option
from quantlab.records.schema import CellResult, Record
from quantlab.report import __main__ as report
from quantlab.scoring.keywords import check_keywords, read_keywords, with_keywords
from quantlab.scoring.normalise import NORMALISERS, Normaliser
from quantlab.scoring.score import SCORERS, Scorer, Scoring, recount
from quantlab.scoring.streams import recounted
from quantlab.scoring.words import with_matches
from quantlab.streaming.figures import with_streams
from quantlab.util.command import HELP, PATH, OneOf, example, perform
from quantlab.util.console import MISUSED, NO, tell, warn
from quantlab.util.counted import counted
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError


class SameFolderError(ConfigError):
    """The output folder is one of the roots, whose records must not change."""


def rescore(
    root: str | Path,
    normaliser: Normaliser | None = None,
    scorer: Scorer | None = None,
    keywords: tuple[str, ...] | None = None,
) -> Iterator[CellResult]:
    """Score every record below `root` again; records without text are returned unchanged.

    None keeps the normaliser, scorer or keywords of each record. What a newer version counts is added.

        Unreadable records are skipped with a warning on stderr.
    """
    for cell_id in storage.recorded(root):
        try:
            result = _read(root, cell_id)
            if result is not None and result.record.stopped_early and _changes(result.record, normaliser, scorer):
                warn(f"cell {cell_id} is not rescored, as its counts stopped it early: measure it with protocol=paper")
                continue
            scored = None if result is None else _rescored(result, normaliser, scorer, keywords)
        except (OSError, *IMPOSSIBLE) as error:
            warn(f"cell {cell_id} cannot be read, so it is not rescored: {error}")
        else:
            if scored is not None:
                yield scored


def write(
    root: str | Path,
    output: str | Path,
    normaliser: Normaliser | None = None,
    scorer: Scorer | None = None,
    keywords: tuple[str, ...] | None = None,
) -> int:
    """Store the rescored records below `output`, complete, so that report, recommend and verify can read them.

    Returns:
        The number of records.

    Raises:
        SameFolderError: `output` is `root`.
    """
    _refuse_same(output, [root])
    return _store(output, rescore(root, normaliser, scorer, keywords))


def _refuse_same(output: str | Path, roots: Iterable[str | Path]) -> None:
    if Path(output).resolve() in {Path(root).resolve() for root in roots}:
        raise SameFolderError(
            f"--output {output} is the root itself, whose records must not change; name another folder"
        )


def _store(output: str | Path, results: Iterable[CellResult]) -> int:
    return len([storage.write(output, result) for result in results])


def _read(root: str | Path, cell_id: str) -> CellResult | None:
    found = storage.read(root, cell_id)
    if found is None:
        return None
    utterances = tuple(storage.read_utterances(root, cell_id))
    batches = tuple(storage.read_batches(root, cell_id))
    streams = tuple(storage.read_streams(root, cell_id))
    folder = storage.cells_dir(root) / cell_id
    if found.digests and found.digests != storage.digests(folder):
        raise ValueError(f"the raw files in {folder} have changed since then; quantlab verify shows what differs")
    return CellResult(record=found, utterances=utterances, batches=batches, streams=streams)


def _scoring(record: Record, normaliser: Normaliser | None, scorer: Scorer | None) -> Scoring:
    return replace(
        Scoring.of_language(record.setting("dataset.language") or "en"),
        normaliser=normaliser or record.normaliser,
        scorer=scorer or record.scorer,
    )


def _changes(record: Record, normaliser: Normaliser | None, scorer: Scorer | None) -> bool:
    return _scoring(record, normaliser, scorer) != Scoring.of_record(record)


def _rescored(
    result: CellResult, normaliser: Normaliser | None, scorer: Scorer | None, keywords: tuple[str, ...] | None
) -> CellResult:
    found = result.record
    scoring = _scoring(found, normaliser, scorer)
    words = found.keywords if keywords is None else keywords
    utterances = tuple(
        with_matches(with_keywords(recount(item, scoring), words, scoring), scoring) for item in result.utterances
    )
    splits = {
        name: split_result(
            [item for item in utterances if item.split == name],
            [item for item in result.batches if item.split == name],
        )
        for name in found.splits
    }
    how = {"normaliser": scoring.normaliser, "error_unit": scoring.unit, "scorer": scoring.scorer}
    has_text = any(item.hypothesis is not None for item in utterances)
    looks = None if _changes(found, normaliser, scorer) else found.adaptive  # they were of the other counts
    changed = found.model_copy(
        update=how | {"splits": splits, "keywords": words if has_text else None, "adaptive": looks}
    )
    streams = recounted(result.streams, utterances, scoring)
    changed = with_streams(changed, streams, utterances)
    return result.model_copy(update={"record": changed, "utterances": utterances, "streams": streams})


def _check(root: Path, keywords: tuple[str, ...], normaliser: Normaliser | None) -> None:
    """Refuse keywords that occur in the references of no record.

    Raises:
        ConfigError: the message is that of the last record.
    """
    refused: ConfigError | None = None
    for cell_id in storage.recorded(root):
        try:
            found = storage.read(root, cell_id)
            references = [item.reference for item in storage.read_utterances(root, cell_id)]
        except (OSError, ValueError):
            continue  # `rescore` names it
        if found is not None and references:
            try:
                check_keywords(keywords, references, _scoring(found, normaliser, None))
            except ConfigError as error:
                refused = error
            else:
                return
    if refused is not None:
        raise refused


@click.command("rescore", context_settings=HELP, epilog=example("quantlab rescore --scorer kaldialign_compounds"))
@roots_option("; they are not changed")
@click.option("--normaliser", type=OneOf("normaliser", NORMALISERS))
@click.option("--scorer", type=OneOf("scorer", SCORERS))
@click.option(
    "--keywords", metavar="FILE", help="Count recall and precision of these words and phrases, one in a line."
)
@click.option("--output", type=PATH, metavar="DIR", help="Store full records here instead of printing a report.")
@click.option(
    "--format", type=OneOf("format", report.FORMATS), default="table", show_default=True, help="Format of the report."
)
def command(
    roots: tuple[Path, ...],
    normaliser: Normaliser | None,
    scorer: Scorer | None,
    keywords: str | None,
    output: Path | None,
    format: str,
) -> int:
    """Score the recorded hypotheses again with another text normaliser, scorer or keywords, without inference.

    Without an option, each record keeps its own; --output alone adds what this version counts and an older one did not.

    Normalisers: whisper is Whisper's, for English with numbers and spellings; whisper_marks is the same but keeps
    vowel signs and other marks; basic: lower case, no punctuation; none: the unchanged text.

    Scorers: jiwer is plain edit distance; kaldialign_compounds, used by the Open ASR Leaderboard since June 2026,
    accepts words written apart or together. CER always uses jiwer.

    Exit code: 0, 1 if there are no records, 2 if the output is a root or cannot be written, or an option is wrong.
    """
    asked = {"normaliser": normaliser, "scorer": scorer, "keywords": keywords}
    how = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
    if not how and output is None:
        raise click.UsageError("nothing to change: give --normaliser, --scorer, --keywords, or --output alone")
    words = None if keywords is None else read_keywords(keywords)
    if output is not None:
        _refuse_same(output, roots)
    with several.below(roots) as root, tempfile.TemporaryDirectory(prefix="quantlab-rescore-") as folder:
        if words is not None:
            _check(root, words, normaliser)
        try:
            count = _store(output or folder, rescore(root, normaliser, scorer, words))
        except OSError as error:
            warn(f"{error.filename or output} cannot be written: {error.strerror}; name another folder")
            return MISUSED
        if not count:
            warn(no_records(*roots))
            return NO
        if output is None:
            return report.main(["--root", folder, "--format", format])
    tell(f"{counted(count, 'record')} scored by {how or 'their own settings'}: quantlab report --root {output}")
    return 0


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
