"""Columns of the table for terminals: what names a cell, and its figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from quantlab.records.labels import AXES, ID, OF_FORMAT, differences
from quantlab.records.word_times import TimeErrors
from quantlab.report import ranking, streaming, word_times
from quantlab.report.against import asked_for
from quantlab.report.cell_summary import CellSummary, Rate
from quantlab.report.hidden import loop_share
from quantlab.report.ranking import Metric
from quantlab.report.study import rated_splits
from quantlab.report.word_times import Edge
from quantlab.report.wording import (
    corpora,
    estimate,
    half_width,
    megabytes,
    models,
    p_value,
    percent,
    points,
    rate_columns,
    rate_name,
    three_digits,
    used_share,
)
from quantlab.stats.estimate import Estimate

Shown = TypeVar("Shown")
Names = Mapping[str, str | None]  # cell id → text in a column


@dataclass(frozen=True)
class Column:
    """A column: the text of each row, and the ranking that marks the best."""

    title: tuple[str, ...]  # lines
    show: Callable[[CellSummary], str | None]  # None: empty
    metric: Callable[[Sequence[CellSummary]], Metric | None] = lambda rows: None  # ranking of comparable cells
    drop_first: int = 0  # order of dropping on a narrow terminal, highest first; 0 = never
    shrinks: bool = False  # names may be shortened if even that is not enough, figures never
    words: bool = False
    scored: bool = False  # an error rate or a difference of two, among the last to be dropped


def columns(rows: Sequence[CellSummary]) -> list[Column]:
    """The columns that these rows need, in reading order."""
    splits = rated_splits(rows)
    rate = rate_name(rows)
    by_letter = [] if rate == "CER" else splits  # else CER would appear twice
    judged = any(row.verdict is not None for row in rows)
    status_drops = 2 if judged or all(row.ok for row in rows) else 0  # failures are also listed below the table
    return [
        *_named(rows),
        *([Column(("error", "unit"), lambda row: row.record.error_unit, words=True)] if " or " in rate else []),
        *(column for split in splits for column in _rates(rows, "wer", rate, split)),
        *(column for split in by_letter for column in _rates(rows, "cer", "CER", split, drop_first=6)),
        Column(("RTF",), lambda row: row.rtf and three_digits(row.rtf.value), ranking.speed_by(ranking.rtf)),
        *_compared(rows),
        Column(("size", "MB"), lambda row: _shown(row.size_bytes, megabytes), _size),
        Column(("smaller", "by %"), lambda row: _shown(row.record.size_reduction, _percent_short), _size, drop_first=5),
        *_word_times(rows),
        *_nonspeech(rows),
        *_difference(rows),
        *_used(rows),
        *_loops(rows),
        *_streaming(rows, rate),
        *([Column((rate, "verdict"), lambda row: row.verdict, words=True)] if judged else []),
        Column(("status",), lambda row: row.status, drop_first=status_drops, words=True),
    ]


def _size(rows: Sequence[CellSummary]) -> Metric:
    return ranking.size()


def _shown(figure: Shown | None, show: Callable[[Shown], str]) -> str | None:
    return None if figure is None else show(figure)


def _percent_short(fraction: float) -> str:
    return percent(fraction, 1)


def _rates(rows: Sequence[CellSummary], rate: Rate, title: str, split: str, drop_first: int = 0) -> Iterator[Column]:
    """The columns of an error rate in one split."""

    def show(stands_in: Callable[[CellSummary], bool], row: CellSummary) -> str | None:
        found = row.rate(rate, split) if stands_in(row) else None
        return found and percent(found.value)

    for how, stands_in in rate_columns(rows, rate):
        yield Column(
            (f"{title} %", split, *how), partial(show, stands_in), lambda rows: ranking.accuracy(rate, split),
            drop_first, scored=True,
        )  # fmt: skip


def _word_times(rows: Sequence[CellSummary]) -> Iterator[Column]:
    """Columns of the errors of word times in each split, if there are any: the median of their sizes."""

    def found(split: str, edge: Edge, row: CellSummary) -> tuple[TimeErrors | None, str]:
        own = row.record.splits.get(split)
        return word_times.errors(None if own is None else own.word_times, row.word_times.get(split), edge)

    def show(split: str, edge: Edge, row: CellSummary) -> str | None:
        return word_times.milliseconds(found(split, edge, row)[0])

    for split in dict.fromkeys(name for row in rows for name in row.splits):
        for edge in word_times.EDGES:
            shown = [found(split, edge, row) for row in rows]
            if any(errors is not None for errors, _ in shown):
                against = " or ".join(dict.fromkeys(what for errors, what in shown if errors is not None))
                yield Column((f"{edge} ms", split, f"to {against}"), partial(show, split, edge), drop_first=6)


def _nonspeech(rows: Sequence[CellSummary]) -> list[Column]:
    """Column of words decoded in audio without speech, if such audio was measured."""
    if all(row.nonspeech_words_per_min is None for row in rows):
        return []
    title = f"against {asked_for(rows) or 'baseline'}"
    return [
        Column(("non-speech", "words/min"), lambda row: _shown(row.nonspeech_words_per_min, _per_min)),
        Column(
            ("words/min", title),
            lambda row: _shown(row.nonspeech, lambda found: found.verdict),
            drop_first=5,
            words=True,
        ),
    ]


def _per_min(found: Estimate) -> str:
    return estimate(found, three_digits)


def _loops(rows: Sequence[CellSummary]) -> list[Column]:
    """Column of loops beside the verdict, if there are any: a few make a verdict of tied unsafe."""
    if not any(found is not None and found.value for found in map(loop_share, rows)):
        return []
    return [Column(("loops", "%"), lambda row: _shown(loop_share(row), lambda found: percent(found.value)))]


def _streaming(rows: Sequence[CellSummary], rate: str) -> list[Column]:
    """Columns of streaming, over all splits, if a cell streamed."""
    if not streaming.pooled(rows):
        return []
    return [
        Column(("streamed", f"{rate} %"), streaming.wer, scored=True),
        Column(("minus whole,", "points"), streaming.increase, scored=True),
        Column(("first", "text s"), streaming.first_text, drop_first=4),
        Column(("word", "final s"), streaming.final, drop_first=1),
        Column(("taken", "back %"), streaming.taken_back, drop_first=3),
        Column(("streaming", "RTF"), streaming.rtf, drop_first=4),
        Column(("kept", "up"), streaming.kept_up, drop_first=2),
    ]


def _used(rows: Sequence[CellSummary]) -> list[Column]:
    """Column of how much of the corpus was used, if a cell stopped early."""
    if not any(row.stopped_early for row in rows):
        return []
    return [Column(("corpus", "used"), lambda row: _shown(row.record.adaptive, used_share), drop_first=2)]


def _compared(rows: Sequence[CellSummary]) -> list[Column]:
    """Column of time relative to the baseline, if cells were timed in turns with it."""
    if all(row.record.speed is None for row in rows):
        return []
    by_ratio = ranking.speed_by(ranking.time_ratio)
    return [
        Column(("time", "×base"), _ratio, by_ratio, drop_first=1),
        Column(
            ("speed",),
            lambda row: None if (speed := row.record.speed) is None else speed.verdict,
            drop_first=7,
            words=True,
        ),
    ]


def _ratio(row: CellSummary) -> str | None:
    """`0.84 ±0.01`, with a question mark if the interval is wider than the protocol requires."""
    speed = row.record.speed
    return None if speed is None else half_width(speed.ratio, speed.ci95) + ("" if speed.converged else " ?")


def _difference(rows: Sequence[CellSummary]) -> list[Column]:
    """Columns of the difference from a reference that was asked for, and of its corrected p-value."""
    name = asked_for(rows)
    if name is None:
        return []
    return [
        Column((f"against {name},", "points"), lambda row: _shown(row.difference(), _points), scored=True),
        Column(("p",), lambda row: _shown(row.comparison, lambda found: p_value(found.p_holm)), drop_first=3),
    ]


def _points(change: Estimate) -> str:
    return estimate(change, points)


def _named(rows: Sequence[CellSummary]) -> list[Column]:
    """Columns that identify a cell: the corpus if there are several, and further settings that distinguish cells."""
    of_all: dict[str, Names] = {
        "model": models(rows),
        "quant": _values("quant.name", rows),
        "device": _values("device.name", rows),
    }
    found = [
        Column((axis,), _looked_up(of), drop_first=_droppable(axis, of), shrinks=True, words=True)
        for axis, of in of_all.items()
    ]
    further: dict[str, Names] = {
        axis: of
        for axis, key in AXES.items()
        if _tells_apart(
            of := _values(key, rows), _determined_by(key, of_all | {"format": _values("quant.format", rows)})
        )
        or (axis == "dtype" and any(row.settings.is_half for row in rows))
    }
    corpus = corpora(rows)
    if len(set(corpus.values())) > 1:
        further = {"dataset": corpus, **further}
    shown = [*of_all.values(), *further.values()]
    looks = {row.cell_id: tuple(of[row.cell_id] for of in shown) for row in rows}
    if len(set(looks.values())) < len(looks):
        further |= _distinguishing(rows, looks)
    return [
        *found,
        *(Column(tuple(axis.split("_")), _looked_up(of), shrinks=True, words=True) for axis, of in further.items()),
    ]


def _distinguishing(rows: Sequence[CellSummary], looks: Mapping[str, Hashable]) -> dict[str, Names]:
    """Columns for rows that look alike: what differs (machine, version, date), and the ids."""
    apart = differences([row.named for row in rows], looks)
    return {
        "differs_in": {cell_id: ", ".join(parts) or None for cell_id, parts in apart.items()},
        "cell": {row.cell_id: row.cell_id[:ID] for row in rows},
    }


def _determined_by(key: str, of_all: Mapping[str, Names]) -> Collection[Names]:
    """The names that normally determine a setting: the quantizer's name for quantizer settings, whatever the model."""
    if key in OF_FORMAT:
        return [of_all["quant"], of_all["format"]]
    return [of_all["quant"]] if key.startswith("quant.") else of_all.values()


def _values(key: str, rows: Sequence[CellSummary]) -> Names:
    return {row.cell_id: None if (value := row.named.setting(key)) is None else _as_text(value) for row in rows}


def _as_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _looked_up(of: Names) -> Callable[[CellSummary], str | None]:
    return lambda row: of[row.cell_id]


def _droppable(axis: str, of: Names) -> int:
    """Drop order of a name column: the quantizer stays; device and model may go if equal in all rows (stated below)."""
    return 0 if len(set(of.values())) > 1 else {"quant": 0, "model": 3, "device": 4}[axis]


def _tells_apart(of: Names, named: Collection[Names]) -> bool:
    """Whether the values differ between rows with equal names."""
    seen: dict[tuple[str | None, ...], object] = {}
    return any(seen.setdefault(tuple(name[cell_id] for name in named), value) != value for cell_id, value in of.items())
