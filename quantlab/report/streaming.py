"""Streaming, for people and programs: what it costs, how late words are, how many are taken back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantlab.records.streams import StreamFigures
from quantlab.report.cell_summary import CellSummary
from quantlab.report.parts import Cell, Section, Table
from quantlab.report.results import caption
from quantlab.report.study import Group
from quantlab.report.wording import ABSENT, estimate, percent, points, rate_name, three_digits
from quantlab.util.printable import printable

_NOTES = (
    "Each utterance was decoded again while it was spoken, on a virtual clock that the measured seconds of features "
    "and decoding move. Minus whole: {rate} of the final texts − {rate} of the same utterances decoded whole.",
    "First text: from the begin of the audio to the first words. Shown, final: delay of a word until it was shown for "
    "good, and until it could no longer change, from the arrival of the audio in which it was first heard; a word may "
    "have been spoken up to a chunk before. Lag: from the end of the audio to the final text.",
    "Taken back: words that were removed or replaced after they had been shown, of all that were shown. RTF: computing "
    "/ audio, above 1 it falls behind. Kept up: utterances with a lag of at most one chunk.",
)


def streams(row: CellSummary) -> Iterator[tuple[str, StreamFigures]]:
    """The figures of each split that has streams."""
    yield from ((name, one.streaming) for name, one in row.record.splits.items() if one.streaming is not None)


def settings(row: CellSummary) -> str:
    """`local_agreement, chunk_s=1, agreement=2`."""
    policy, *keys = row.streaming_settings.items()
    return printable(
        ", ".join([str(policy[1]), *(f"{key}={_plain(value)}" for key, value in keys if value is not None)])
    )


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def section(group: Group) -> Section | None:
    """A table of the streams of each cell and split; None without any."""
    rows = [row for row in group.rows if row.record.streaming is not None]
    if not rows:
        return None
    several = len({settings(row) for row in rows}) > 1
    lines = tuple(
        (
            Cell(str(row.settings.device)),
            Cell(group.methods[row.cell_id]),
            *((Cell(settings(row)),) if several else ()),
            Cell(split),
            Cell(_percent(found.wer)),
            Cell(increase(row, split) or ABSENT),
            Cell(_seconds(found.first_text_p50_s, found.first_text_p95_s)),
            Cell(_seconds(found.shown_p50_s, found.shown_p95_s)),
            Cell(_seconds(found.final_p50_s, found.final_p95_s)),
            Cell(_seconds(found.lag_p50_s, found.lag_p95_s)),
            Cell(f"{found.taken_back} of {found.taken_back + found.words} ({_percent(found.taken_back_share)} %)"),
            Cell(three_digits(found.rtf)),
            Cell(f"{found.kept_up} of {found.utterances}"),
        )
        for row in rows
        for split, found in streams(row)
    )
    rate = rate_name(rows)
    header = (
        *("device", "method", *(("streaming",) if several else ()), "split", f"{rate} % streamed"),
        *("minus whole, points", "first text, s", "shown, s", "final, s", "lag, s", "taken back", "RTF", "kept up"),
    )
    title = "Streaming" if several else f"Streaming: {settings(rows[0])}"
    notes = [note.format(rate=rate) for note in _NOTES] + [
        "Seconds are the median, and the 95th percentile if there are enough."
    ]
    table = Table(header, lines, caption("Streaming", group), "ll" + "l" * several + "l" + "r" * 9)
    return Section(title, table=table, notes=tuple(notes), level=3)


def increase(row: CellSummary, split: str | None = None) -> str | None:
    """Streamed minus whole, in points, with its interval."""
    found = row.streaming_increase(split)
    return None if found is None else estimate(found, points)


def pooled(rows: Sequence[CellSummary]) -> bool:
    """Whether any of the cells streamed."""
    return any(row.record.streaming is not None for row in rows)


def wer(row: CellSummary) -> str | None:
    """Error rate of the streamed texts over all splits, in percent."""
    found = row.record.streaming
    return None if found is None or found.wer is None else percent(found.wer)


def final(row: CellSummary) -> str | None:
    """Delay of a word until it was final: `0.61`, or `0.61, p95 1.02`."""
    found = row.record.streaming
    return None if found is None or found.final_p50_s is None else _seconds(found.final_p50_s, found.final_p95_s)


def first_text(row: CellSummary) -> str | None:
    """Time to the first words."""
    found = row.record.streaming
    return None if found is None or found.first_text_p50_s is None else three_digits(found.first_text_p50_s)


def taken_back(row: CellSummary) -> str | None:
    """Share of the shown words that were taken back, in percent."""
    found = row.record.streaming
    return None if found is None or found.taken_back_share is None else percent(found.taken_back_share, 1)


def rtf(row: CellSummary) -> str | None:
    """Computing / audio."""
    found = row.record.streaming
    return None if found is None else three_digits(found.rtf)


def kept_up(row: CellSummary) -> str | None:
    """`12/12`: utterances that kept up."""
    found = row.record.streaming
    return None if found is None else f"{found.kept_up}/{found.utterances}"


def _percent(fraction: float | None) -> str:
    return ABSENT if fraction is None else percent(fraction)


def _seconds(p50_s: float | None, p95_s: float | None) -> str:
    if p50_s is None:
        return ABSENT
    return three_digits(p50_s) + ("" if p95_s is None else f", p95 {three_digits(p95_s)}")
