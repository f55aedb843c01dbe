"""Check of one cell against the limits: it qualifies, falls out, or the data are insufficient."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from quantlab.analysis.evidence import Comparison
from quantlab.config import overrides
from quantlab.report.cell_summary import CellSummary, pair
from quantlab.report.wording import MB, embedding_left, estimate, megabytes, points, rate_name, three_digits
from quantlab.stats.bootstrap import MIN_UNITS
from quantlab.stats.estimate import Estimate
from quantlab.util.languages import ErrorUnit

Standing = Literal["qualifies", "falls out", "underpowered", "undecided"]
STANDINGS: tuple[Standing, ...] = ("falls out", "undecided", "underpowered", "qualifies")  # in order of precedence
_HALF_WIDTH_TO_MDE = (1.959964 + 0.841621) / 1.959964  # 80 % power / half of a 95 % interval, in standard deviations
_HUNDREDTH = 0.0001  # 0.01 percentage points, as a fraction
_BUNDLE = "bundle more clips, or an unquantized model with it (quantlab bundle), and measure on the machine again"
_HOPELESS = 100  # factor of utterances beyond which no advice is given


@dataclass(frozen=True)
class Limits:
    """Limits of a recommendation; None means no limit."""

    max_size_mb: float | None = None  # 10^6 bytes
    max_wer_increase: float = 0.5  # percentage points against the fp32 baseline
    max_rtf: float | None = None
    max_memory_mb: float | None = None  # 10^6 bytes, peak
    device: str | None = None
    model: str | None = None
    dataset: str | None = None
    split: str | None = None  # the WER increase in this split; None = over all of them

    def __post_init__(self) -> None:
        for name in ("max_size_mb", "max_rtf", "max_memory_mb"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}={value:g}: a number above 0")
        if not (math.isfinite(self.max_wer_increase) and self.max_wer_increase >= 0):
            raise ValueError(f"max_wer_increase={self.max_wer_increase:g}: percentage points, 0 or more")


@dataclass(frozen=True)
class Candidate:
    """The figures of a cell that a choice depends on, in fractions, seconds, bytes; None if missing."""

    cell_id: str
    name: str
    error_unit: ErrorUnit  # unit that WER counts
    size_bytes: int | None
    rtf: Estimate | None
    speed: Estimate | None  # time / time of the baseline
    speed_converged: bool | None  # whether the interval is as narrow as the protocol requires
    wer_increase: Estimate | None
    peak_memory_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "cell_id": self.cell_id,
            "name": self.name,
            "error_unit": self.error_unit,
            "size_bytes": self.size_bytes,
            **pair("rtf", self.rtf),
            "speed_ratio": self.speed and self.speed.value,
            "speed_ci95": self.speed and self.speed.ci95,
            "speed_converged": self.speed_converged,
            **pair("wer_increase", self.wer_increase),
            "peak_memory_bytes": self.peak_memory_bytes,
        }


@dataclass(frozen=True)
class Finding:
    """Standing of a cell, with reasons."""

    cell: Candidate
    standing: Standing
    reasons: tuple[str, ...] = ()
    advice: str | None = None  # how many more utterances would decide
    command: str | None = None  # command that would decide
    over: float = 0.0  # largest excess over a limit, relative to that limit


@dataclass(frozen=True)
class _Check:
    standing: Standing
    reason: str
    advice: str | None = None
    command: str | None = None
    over: float = 0.0


def candidate(row: CellSummary, name: str, split: str | None = None) -> Candidate:
    """The figures of a cell that a choice depends on."""
    return Candidate(
        cell_id=row.cell_id,
        name=name,
        error_unit=row.record.error_unit,
        size_bytes=row.size_bytes,
        rtf=row.rtf,
        speed=row.ratio,
        speed_converged=None if row.record.speed is None else row.record.speed.converged,
        wer_increase=row.increase("wer", split),
        peak_memory_bytes=row.record.peak_memory_bytes,
    )


def judge(row: CellSummary, name: str, limits: Limits, output_dir: str) -> Finding:
    """Judge a cell against all limits; WER is tested only if size, memory and RTF are within theirs."""
    return judge_counted(row, name, limits) or _combined(
        candidate(row, name, limits.split), [*_counted(row, limits), _wer(row, limits, output_dir)]
    )


def judge_counted(row: CellSummary, name: str, limits: Limits) -> Finding | None:
    """The finding on a cell that falls out by its status, size, memory or RTF; None otherwise.

    Needs no statistics, which therefore need not be computed for such a cell.
    """
    found = _combined(candidate(row, name, limits.split), list(_counted(row, limits)))
    return found if found.standing == "falls out" else None


def _combined(cell: Candidate, checks: Sequence[_Check]) -> Finding:
    standing: Standing = min((check.standing for check in checks), key=STANDINGS.index, default="qualifies")
    if standing == "qualifies":
        return Finding(cell, "qualifies")
    found = [check for check in checks if check.standing == standing]
    advice = next((check.advice for check in found if check.advice), None)
    command = next((check.command for check in found if check.command), None)
    return Finding(
        cell, standing, tuple(check.reason for check in found), advice, command, max(check.over for check in found)
    )


def _counted(row: CellSummary, limits: Limits) -> Iterator[_Check]:
    if not row.ok:
        yield _Check("falls out", f"{row.status}: {row.record.reason}", over=math.inf)
        return
    for check in _bytes("size", row.size_bytes, limits.max_size_mb):
        yield replace(check, advice=embedding_left(row))
    yield from _bytes("peak memory", row.record.peak_memory_bytes, limits.max_memory_mb)
    if limits.max_rtf is not None:
        yield _rtf(row, limits.max_rtf)


def _bytes(what: str, found: int | None, allowed_mb: float | None) -> Iterator[_Check]:
    if allowed_mb is None:
        return
    if found is None:
        yield _Check("undecided", f"{what} was not measured")
    elif found > allowed_mb * MB:
        reason = f"{what} {megabytes(found)} MB, allowed {allowed_mb:g}"
        yield _Check("falls out", reason, over=found / (allowed_mb * MB) - 1)


def _rtf(row: CellSummary, allowed: float) -> _Check:
    if row.rtf is None:
        return _Check("undecided", "RTF was not measured")
    low, high = row.rtf.ci95 or (row.rtf.value, row.rtf.value)
    reason = f"RTF {estimate(row.rtf, three_digits)}, allowed {allowed:g}"
    if row.rtf.ci95 is None and row.flags:
        disturbed = f"{reason}, but it was measured once, while {'; '.join(row.flags)}"
        return _Check("undecided", disturbed, "measure it alone on the machine, with protocol=careful")
    if low > allowed:
        return _Check("falls out", reason, over=row.rtf.value / allowed - 1)
    return _Check("underpowered" if high > allowed else "qualifies", reason)


def _wer(row: CellSummary, limits: Limits, output_dir: str) -> _Check:
    change, allowed = row.increase("wer", limits.split), limits.max_wer_increase / 100
    if change is None or change.ci95 is None:
        check = _incomparable(row, limits.split, output_dir)
        return check if row.record.bundle is None else replace(check, command=None, advice=_BUNDLE)
    low, high = change.ci95
    where = "" if limits.split is None else f" in {limits.split}"
    close = any(0 < abs(end - allowed) < _HUNDREDTH for end in change.ci95)
    show = functools.partial(points, digits=3 if close else 2)  # avoids "0.50, allowed 0.5" just above a limit
    found = f"{rate_name([row])} {estimate(change, show, ' points')}{where}"
    reason = f"{found}, allowed +{limits.max_wer_increase:g}"
    if high <= allowed:
        return _Check("qualifies", reason)
    over = (change.value - allowed) / max(allowed, 0.001)  # for a limit of 0, relative to 0.1 points
    if low > allowed:
        return _Check("falls out", reason, over=over)
    return _Check("underpowered", reason, _more(row, limits.split, change, allowed), over=max(over, 0.0))


def _incomparable(row: CellSummary, split: str | None, output_dir: str) -> _Check:
    """Why the WER of a cell cannot be compared with its baseline's, and the command that would make it possible."""
    command = functools.partial(overrides.command, row.record.config, output_dir)
    if row.settings.weights != "pretrained":
        return _Check("undecided", f"{row.settings.weights} weights have no WER", command=command(("model.weights",)))
    if split is not None and split not in row.splits:
        return _Check("undecided", f"split {split} was not measured", command=command(("dataset.splits",)))
    if row.baseline is None:
        return _Check("undecided", "no baseline (quant=none, all else equal) is recorded", command=command())
    if row.wer is None:
        return _Check("undecided", "it has no scored text", command=command())
    if row.comparison is None:
        return _Check("undecided", "it has no scored text in common with its baseline", command=command())
    return _too_few(row, row.comparison, split, command)


def _too_few(
    row: CellSummary, compared: Comparison, split: str | None, command: Callable[[tuple[str, ...]], str]
) -> _Check:
    """The check of a cell with fewer utterances (or speakers) than an interval needs."""
    count = compared.units if split is None else row.splits[split].result.utterances
    where = "" if split is None else f" in {split}"
    reason = f"an interval needs {MIN_UNITS} {compared.unit}s, there {'is' if count == 1 else 'are'} {count}{where}"
    if row.record.setting("dataset.limit") is None:
        return _Check("undecided", reason, f"add utterances to {row.corpus.name}, or measure another corpus")
    return _Check("undecided", reason, command=command(("dataset.limit",)))


def _more(row: CellSummary, split: str | None, change: Estimate, allowed: float) -> str:
    """Number of utterances needed to decide with 80 % power if the difference stays the same.

    The minimum detectable difference is inversely proportional to the square root of that number.
    """
    assert change.ci95 is not None
    if row.stopped_early:
        return "it stopped early, by stats.margin: measure it with protocol=paper, or with this limit as stats.margin"
    pooled = row.comparison if split is None else None
    count = pooled.utterances if pooled else row.splits[str(split)].result.utterances
    detectable = (change.ci95[1] - change.ci95[0]) / 2 * _HALF_WIDTH_TO_MDE
    if pooled and pooled.mde is not None:
        detectable = pooled.mde
    distance = abs(allowed - change.value)
    if distance == 0 or (detectable / distance) ** 2 > _HOPELESS:
        return f"too close to the limit: even {_HOPELESS} times the {count:,} utterances would hardly decide it"
    more = count * ((detectable / distance) ** 2 - 1)
    if more < 1:  # a skewed interval, as few utterances give
        return f"more utterances are needed than the {count:,}, but too few are known to say how many"
    return f"about {_two_digits(more)} more utterances than the {count:,} would decide it, if the difference stays"


def _two_digits(count: float) -> str:
    digits = max(len(str(math.ceil(count))) - 2, 0)
    return f"{math.ceil(count / 10**digits) * 10**digits:,}"
