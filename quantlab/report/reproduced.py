"""Verdict whether a published figure was reproduced, with reasons, from what is known of both measurements."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from quantlab.config.options import names, option
from quantlab.config.schema import Architecture
from quantlab.report.cell_summary import CellSummary, Compared, Reproduced, SplitSummary
from quantlab.report.published import Figure, Published, matching, measured_split
from quantlab.stats.bootstrap import MIN_UNITS
from quantlab.stats.estimate import Estimate
from quantlab.util.counted import counted

_RATES = ("wer", "cer")


def compared(cell: CellSummary, published: Published | None = None) -> tuple[Compared, ...]:
    """The published figures that match a cell, each with its verdict."""
    return tuple(_compared(cell, figure) for figure in matching(cell, published))


def _compared(cell: CellSummary, figure: Figure) -> Compared:
    ours = _measured(cell, figure)
    obstacles = list(_obstacles(cell, figure, ours))
    verdict: Reproduced
    verdict, why = ("not comparable", obstacles) if obstacles or ours is None else _judged(cell, figure, ours)
    return Compared(
        source=figure.of.source,
        where=figure.of.where,
        metric=figure.metric,
        split=figure.split,
        unit=figure.of.unit if figure.metric in _RATES else "percent" if figure.metric == "size_reduction" else None,
        value=float(figure.value),
        published=str(figure.value),
        measured=ours,
        verdict=verdict,
        reason="; ".join(why),
    )


def _measured(cell: CellSummary, figure: Figure) -> Estimate | None:
    """The measured value in the unit of the source."""
    rtf, reduction = cell.rtf, cell.record.size_reduction
    if figure.metric in _RATES and (split := measured_split(cell, figure)) is not None:
        found = cell.rate("wer" if figure.metric == "wer" else "cer", split)
        return found and found.times(100 if figure.of.unit == "percent" else 1)
    if figure.metric == "size_reduction":
        return None if reduction is None else Estimate(100 * reduction)
    if figure.metric == "rtf":
        return rtf and Estimate(rtf.value)
    return Estimate(1 / rtf.value) if figure.metric == "rtfx" and rtf and rtf.value else None


# Reasons why the two are not comparable


def _obstacles(cell: CellSummary, figure: Figure, ours: Estimate | None) -> Iterator[str]:
    """Reasons why the two are not comparable; none if they are."""
    model = cell.record.setting("model.name")
    if figure.of.model != model:
        yield f"other model: {figure.of.model} there, {model} here"
    yield from _other_size(cell)
    if figure.of.mixed:
        yield f"mixed formats there ({figure.of.where}), one format here ({cell.settings.format})"
    if figure.metric in figure.source.apart:
        yield figure.source.apart[figure.metric]
    elif figure.metric in _RATES:
        yield from _rate_obstacles(cell, figure, ours)
    elif figure.metric in ("rtf", "rtfx"):
        yield from _time_obstacles(cell, figure)
    elif figure.metric == "size_reduction":
        here, there = cell.settings.dtype or "float32", figure.source.dtype or "float32"
        if here != there:
            yield f"what is not quantized is {there} there, {here} here"
    else:
        yield "not measured here"


def _other_size(cell: CellSummary) -> Iterator[str]:
    """The numbers of parameters, if the cell's is not that of the published model whose name it has."""
    name, receipt = cell.record.setting("model.name"), cell.record.receipt
    shape = option("model", name).get("architecture") if name in names("model") else None
    if receipt is not None and shape is not None and receipt.params != Architecture(**shape).parameters:
        yield f"other checkpoint: {receipt.params:,} parameters here, {name} has {Architecture(**shape).parameters:,}"


def _rate_obstacles(cell: CellSummary, figure: Figure, ours: Estimate | None) -> Iterator[str]:
    source, most = figure.source, cell.record.setting("protocol.max_new_tokens")
    limit = cell.record.setting("dataset.limit")
    if cell.settings.weights != "pretrained":
        yield f"{cell.settings.weights} weights here"
    if figure.corpus.unknown is not None:
        yield figure.corpus.unknown
    yield from _differs("language", figure.corpus.language, cell.settings.language or "en")
    yield from _differs("normaliser", source.normaliser, cell.record.normaliser)
    yield from _differs("scorer", source.scorer if figure.metric == "wer" else None, cell.record.scorer)
    if cell.record.error_unit != "word":
        yield f"errors are counted by {cell.record.error_unit} here"
    yield from _differs("beams", source.beams, cell.record.setting("protocol.num_beams") or 1)
    if source.timestamps:
        yield "decoded with timestamps there, without here"
    if cell.settings.long is not None:
        yield f"long recordings are cut here (dataset.long={cell.settings.long})"
    if cell.settings.audio_ctx not in (None, "full"):
        yield f"audio_ctx={cell.settings.audio_ctx} here: not the whole window is encoded"
    if most is not None:
        yield f"at most {most} tokens are decoded here"
    if limit is not None:
        yield f"part of the corpus: {counted(limit, 'utterance')} of each split here (dataset.limit)"
    if cell.stopped_early:
        yield f"part of the corpus: the cell stopped early here, after {counted(cell.utterances, 'utterance')}"
    if cell.record.setting("dataset.ids"):
        yield "part of the corpus: chosen utterances here (dataset.ids)"
    count, whole = _utterance_counts(cell, figure)
    if whole is not None and count > whole:
        yield f"{counted(count, 'utterance')} here, more than the {whole:,} of {figure.split}: so it is another corpus"
    if ours is None:
        yield "no error rate here"
    elif ours.ci95 is None or (_part(cell, figure).evidence.ci_units or MIN_UNITS) < MIN_UNITS:
        yield f"too few speakers or utterances here for an interval: it takes {MIN_UNITS}"


def _time_obstacles(cell: CellSummary, figure: Figure) -> Iterator[str]:
    """A time is never judged, as it depends on the machine, its clocks and drivers."""
    there = figure.source.hardware_of(figure.of.device) or "not stated"
    environment = cell.record.environment
    here = str(environment.get("gpu" if cell.settings.device == "cuda" else "processor") or "not recorded")
    kind = "another machine" if there.lower() in here.lower() else "other hardware"
    yield f"a time on {kind}: {there} there, {here} here"


def _differs(what: str, there: Any, here: Any) -> Iterator[str]:
    if there is not None and there != here:
        yield f"other {what}: {there} there, {here} here"


def _part(cell: CellSummary, figure: Figure) -> SplitSummary:
    """The measured split that the figure refers to."""
    name = measured_split(cell, figure)
    assert name is not None
    return cell.splits[name]


def _utterance_counts(cell: CellSummary, figure: Figure) -> tuple[int, int | None]:
    """Number of utterances measured, and in the whole split."""
    assert figure.split is not None
    return _part(cell, figure).result.utterances, figure.corpus.splits[figure.split].utterances


# Verdict on comparable figures


def _judged(cell: CellSummary, figure: Figure, ours: Estimate) -> tuple[Reproduced, list[str]]:
    exponent = figure.value.as_tuple().exponent
    assert isinstance(exponent, int)
    digits = -exponent
    if figure.metric == "size_reduction":
        same = _rounded(ours.value, digits) == figure.value
        here = f"{_rounded(ours.value, digits)} % here, to the digit as published"
        return "reproduced" if same else "not reproduced", [here, *_caveats(cell, figure)]
    assert ours.ci95 is not None
    low, high = (_rounded(end, digits) for end in ours.ci95)
    inside = low <= figure.value <= high
    where = "inside" if inside else "below" if figure.value < low else "above"
    known = _part(cell, figure).evidence
    drawn = f" by {known.ci_units} {known.ci_unit}s" if known.ci_unit else ""
    interval = f"{figure.value} is {where} the 95 % interval{drawn}, {low} to {high}"
    return "reproduced" if inside else "not reproduced", [interval, *_coverage(cell, figure), *_caveats(cell, figure)]


def _rounded(value: float, digits: int) -> Decimal:
    return round(Decimal(repr(value)), digits)


def _coverage(cell: CellSummary, figure: Figure) -> Iterator[str]:
    """The share of the split that was measured, as a part may be easier or harder than the whole."""
    count, whole = _utterance_counts(cell, figure)
    if whole is None:
        yield f"{counted(count, 'utterance')} here, their number in the source is unknown"
    elif count < whole:
        yield f"{count:,} of {whole:,} utterances"


def _caveats(cell: CellSummary, figure: Figure) -> Iterator[str]:
    """Differences and unknowns that are assumed to matter little."""
    source = figure.source
    if cell.record.setting("model.path"):
        yield f"the checkpoint of model.path is assumed to be {figure.of.model}"
    if figure.metric not in _RATES:
        return
    if figure.of.device not in (None, cell.settings.device):
        yield f"device: {figure.of.device} there, {cell.settings.device} here"
    here = cell.settings.dtype or "float32"  # missing in older records
    if source.dtype not in (None, here):
        yield f"what is not quantized is {source.dtype} there, {here} here"
    known = {"normaliser": source.normaliser, "beams": source.beams, "timestamps": source.timestamps}
    if unknown := [name for name, value in known.items() if value is None]:
        yield f"not stated by the source: {', '.join(unknown)}"
