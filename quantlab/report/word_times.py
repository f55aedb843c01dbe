"""Word times in reports: errors against the truth, or against the times of the baseline where the corpus has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from quantlab.records.figures import IMPOSSIBLE
from quantlab.records.measured import SplitResult, Utterance
from quantlab.records.several import Stored
from quantlab.records.storage import read_utterances
from quantlab.records.word_times import TimeErrors, WordTimes, compared
from quantlab.scoring.score import Scoring
from quantlab.scoring.words import match

Edge = Literal["start", "end"]
EDGES: tuple[Edge, ...] = ("start", "end")


def against_baselines(
    found: Sequence[Stored], others: Sequence[Stored], baselines: Mapping[str, str | None], warn: Callable[[str], None]
) -> dict[str, dict[str, WordTimes]]:
    """Word times of cells against those of their baselines: cell id → split → figures.

    Words are matched by an alignment of both hypotheses, so that words that only one of them has are not counted.

    Args:
        found: cells.
        others: further cells, in which baselines may be.
        baselines: cell id → id of its baseline.
        warn: called for raw files that cannot be read.
    """
    timed = {item.record.cell_id: item for item in (*found, *others) if _has_times(item)}
    read: dict[str, list[Utterance]] = {}
    compared_with = {}
    for item in found:
        own, other = item.record.cell_id, baselines.get(item.record.cell_id)
        if own not in timed or other not in timed or other == own:
            continue
        try:
            for cell_id in {own, other} - read.keys():
                read[cell_id] = read_utterances(timed[cell_id].root, cell_id)
            scoring = Scoring.of_record(item.record)
            compared_with[own] = dict(_by_split(read[own], read[other], scoring))
        except (OSError, ValueError, *IMPOSSIBLE) as error:
            warn(f"cell {own}: its word times are not compared: {error}")
    return compared_with


def _has_times(item: Stored) -> bool:
    return any(split.word_times is not None for split in item.record.splits.values())


def _by_split(
    cell: Sequence[Utterance], baseline: Sequence[Utterance], scoring: Scoring
) -> Iterator[tuple[str, WordTimes]]:
    theirs = {(item.split, item.id): item.words for item in baseline}
    for split in dict.fromkeys(item.split for item in cell):
        both = [
            (item.words, other)
            for item in cell
            if item.split == split and not item.nonspeech and item.words is not None
            if (other := theirs.get((split, item.id))) is not None
        ]
        matches = [match([word for word, *_ in mine], [word for word, *_ in other], scoring) for mine, other in both]
        yield split, compared([mine for mine, _ in both], [other for _, other in both], matches)


def errors(truth: WordTimes | None, baseline: WordTimes | None, edge: Edge) -> tuple[TimeErrors | None, str]:
    """The errors to show of one split, and what they are against: `truth`, or else `baseline`."""
    if truth is not None and truth.spoken is not None:
        return getattr(truth, edge), "truth"
    return (None if baseline is None else getattr(baseline, edge)), "baseline"


def milliseconds(found: TimeErrors | None) -> str | None:
    """`36`: the median absolute error."""
    return None if found is None else f"{1000 * found.median_s:.0f}"


def facts(splits: Mapping[str, SplitResult], baseline: Mapping[str, WordTimes]) -> Iterator[tuple[str, str]]:
    """Names and texts of the figures of each split, for the page of a cell."""
    for name, split in splits.items():
        if (truth := split.word_times) is not None and truth.spoken is not None:
            yield f"words in {name}, to the truth", described(truth)
        if name in baseline:
            yield f"words in {name}, to the baseline", described(baseline[name])


def described(found: WordTimes) -> str:
    """`starts 36 ms off (88 % within 100 ms), ends 44 ms off (80 %), 1,480 words`: medians of matched words."""
    if found.start is None or found.end is None:
        return "no word matched"
    shares = [f"{100 * part.within_100ms:.0f} %" for part in (found.start, found.end)]
    starts, ends = milliseconds(found.start), milliseconds(found.end)
    return (
        f"starts {starts} ms off ({shares[0]} within 100 ms), ends {ends} ms off ({shares[1]}), {found.matched:,} words"
    )
