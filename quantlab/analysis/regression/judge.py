"""The gate: each cell of a baseline, judged by accuracy, size and speed of its new measurement.

Every question has one of three answers: pass, fail, cannot tell. Better never fails. What was not measured again, or on
other utterances, cannot be told; a cell that failed fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from quantlab.analysis.regression import accuracy, speed
from quantlab.analysis.regression.accuracy import Accuracy, Outcome
from quantlab.analysis.regression.changes import changes
from quantlab.analysis.regression.match import Match, match
from quantlab.analysis.regression.speed import Slowdown
from quantlab.records.bundle import Packed, pack
from quantlab.records.schema import Record

Warn = Callable[[str], None]
Question = Literal["measured", "accuracy", "size", "speed"]


@dataclass(frozen=True)
class Limits:
    """What is allowed."""

    margin: float = 0.5  # percentage points of WER
    max_size_mb: float | None = None
    max_slowdown: float | None = None  # time now / time of the baseline


@dataclass(frozen=True)
class Answer:
    """The answer to one question about a cell."""

    question: Question
    outcome: Outcome | Literal["not judged"]
    why: str = ""  # for what the figures do not say


@dataclass(frozen=True)
class Judged:
    """A cell of the baseline, measured again."""

    before: Packed
    now: Record | None
    answers: tuple[Answer, ...]
    accuracy: Accuracy | None = None
    slowdown: Slowdown | None = None
    changed: tuple[str, ...] = ()  # settings, checkpoint, versions, machine
    notes: tuple[str, ...] = field(default=())

    @property
    def outcome(self) -> Outcome:
        """The worst answer."""
        return worst([answer.outcome for answer in self.answers])


def worst(outcomes: Sequence[str]) -> Outcome:
    """Fail before cannot tell before pass."""
    order: tuple[Outcome, ...] = ("fail", "cannot tell")
    return next((outcome for outcome in order if outcome in outcomes), "pass")


def judge(
    cells: Sequence[Packed], root: Path, records: Sequence[Record], limits: Limits, any_quantizer: bool = False
) -> list[Judged]:
    """Judge every cell of a baseline.

    Args:
        cells: of the baseline.
        root: folder of the new records.
        records: those to choose from.
        limits: what is allowed.
        any_quantizer: whether a cell may be compared with one of another quantizer.
    """
    found = match([cell.record for cell in cells], records, any_quantizer)
    packed = [_packed(root, cell, item) for cell, item in zip(cells, found, strict=True)]
    whys = [_why_not(cell, now) for cell, now in zip(cells, packed, strict=True)]
    pairs = [
        (cell, now) for cell, now, why in zip(cells, packed, whys, strict=True) if isinstance(now, Packed) and not why
    ]
    compared = iter(accuracy.compare(pairs, limits.margin / 100))
    judged = []
    for cell, item, now, why in zip(cells, found, packed, whys, strict=True):
        if isinstance(now, Answer):
            changed = () if item.now is None else tuple(changes(cell.record, item.now))
            judged.append(Judged(cell, item.now, (now,), changed=changed, notes=_notes(item)))
        else:
            judged.append(_judged(cell, now, item, None if why else next(compared), why, limits))
    return judged


def _packed(root: Path, before: Packed, item: Match) -> Packed | Answer:
    """The new measurement; if there is none, the answer that follows."""
    if item.now is None:
        return Answer("measured", "cannot tell", item.why)
    if item.now.status != "ok":
        return Answer("measured", "fail", f"its status is {item.now.status}: {item.now.reason or 'no reason recorded'}")
    try:
        now = pack(root, item.now)
    except (ValueError, OSError) as error:
        return Answer("measured", "cannot tell", f"its record cannot be compared: {str(error).splitlines()[0]}")
    if now == before:
        same = "not measured again: it is the record that the baseline was made of; measure into another output_dir"
        return Answer("measured", "cannot tell", same)
    return now


def _why_not(before: Packed, now: Packed | Answer) -> str | None:
    return accuracy.why_not(before, now) if isinstance(now, Packed) else None


def _judged(
    before: Packed, now: Packed, item: Match, found: Accuracy | None, why: str | None, limits: Limits
) -> Judged:
    answer = Answer("accuracy", found.outcome) if found is not None else Answer("accuracy", "cannot tell", why or "")
    slower = speed.slowdown(before, now)
    answers = [answer, *_size(now.record, limits), *_speed(slower, limits)]
    changed = tuple(changes(before.record, now.record))
    return Judged(before, now.record, tuple(answers), found, slower, changed, _notes(item))


def _notes(item: Match) -> tuple[str, ...]:
    return (item.note,) if item.note else ()


def _size(now: Record, limits: Limits) -> list[Answer]:
    if limits.max_size_mb is None:
        return []
    assert now.receipt is not None  # as its status is ok
    return [Answer("size", "pass" if now.receipt.size_bytes <= limits.max_size_mb * 1e6 else "fail")]


def _speed(found: Slowdown, limits: Limits) -> list[Answer]:
    """Fail if the whole interval is above the limit, pass if it is below."""
    if limits.max_slowdown is None:
        return []
    if found.ratio is None:
        return [Answer("speed", "not judged" if found.other_machine else "cannot tell", found.how)]
    if found.ratio.high <= limits.max_slowdown:
        return [Answer("speed", "pass")]
    if found.ratio.low <= limits.max_slowdown:
        return [Answer("speed", "cannot tell")]
    return [Answer("speed", "cannot tell", "the machine was busy") if found.busy else Answer("speed", "fail")]
