"""Whether a published figure was reproduced here, and the reason, from what is known of both sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from quantlab.report.published import Figure, Published, beside, heard, setting
from quantlab.stats.bootstrap import MIN_UNITS

Row = Mapping[str, Any]
Verdict = Literal["reproduced", "not reproduced", "not comparable"]
_RATES = ("wer", "cer")
_TIMES = ("rtf", "rtfx")


@dataclass(frozen=True)
class Compared:
    """A published figure beside ours; both in the unit of the source."""

    source: str
    where: str
    metric: str
    split: str | None  # of the source
    unit: str | None
    value: float
    published: str  # the value with the digits of the source
    measured: float | None
    ci95: tuple[float, float] | None  # of what was measured
    verdict: Verdict
    reason: str


class _Ours(NamedTuple):
    value: float | None = None
    ci95: tuple[float, float] | None = None


def compared(row: Row, published: Published | None = None) -> list[dict[str, Any]]:
    """The published figures that stand beside a cell, each with its verdict, as JSON has them."""
    found = [asdict(_compared(row, figure)) for figure in beside(row, published)]
    return [item | {"ci95": item["ci95"] and list(item["ci95"])} for item in found]


def _compared(row: Row, figure: Figure) -> Compared:
    ours = _measured(row, figure)
    obstacles = list(_obstacles(row, figure, ours))
    verdict: Verdict
    verdict, why = ("not comparable", obstacles) if obstacles else _judged(row, figure, ours)
    return Compared(
        figure.of.source,
        figure.of.where,
        figure.metric,
        figure.split,
        figure.of.unit if figure.metric in _RATES else "percent" if figure.metric == "size_reduction" else None,
        float(figure.value),
        str(figure.value),
        ours.value,
        ours.ci95,
        verdict,
        "; ".join(why),
    )


def _measured(row: Row, figure: Figure) -> _Ours:
    """What was measured here, in the unit of the source."""
    scale = 100 if figure.of.unit == "percent" else 1
    if figure.metric in _RATES and (name := heard(row, figure)) is not None:
        part = row["splits"][name]
        return _scaled(part[figure.metric], part[f"{figure.metric}_ci95"], scale)
    if figure.metric == "size_reduction":
        return _scaled(row["size_reduction"], None, 100)
    if figure.metric in _TIMES and row["splits"]:
        parts = row["splits"].values()
        rtf = sum(part["generate_s"] for part in parts) / sum(part["audio_s"] for part in parts)
        return _Ours(rtf if figure.metric == "rtf" else 1 / rtf if rtf else None)
    return _Ours()


def _scaled(value: float | None, ci95: Any, scale: float) -> _Ours:
    low_high = None if ci95 is None else (scale * ci95[0], scale * ci95[1])
    return _Ours(None if value is None else scale * value, low_high)


# What stands between the two


def _obstacles(row: Row, figure: Figure, ours: _Ours) -> Iterator[str]:
    """Why the two do not compare, nothing where they do."""
    model = setting(row, "model", "name")
    if figure.of.model != model:
        yield f"other model: {figure.of.model} there, {model} here"
    if figure.of.mixed:
        yield f"mixed formats there ({figure.of.where}), one format here ({row['format']})"
    if figure.metric in figure.source.apart:
        yield figure.source.apart[figure.metric]
    elif figure.metric in _RATES:
        yield from _of_rate(row, figure, ours)
    elif figure.metric in _TIMES:
        yield from _of_time(row, figure)
    elif figure.metric == "size_reduction":
        here, there = row["dtype"] or "float32", figure.source.dtype or "float32"
        if here != there:
            yield f"what is not quantized is {there} there, {here} here"
    else:
        yield "not measured here"


def _of_rate(row: Row, figure: Figure, ours: _Ours) -> Iterator[str]:
    source, most = figure.source, setting(row, "protocol", "max_new_tokens")
    if row["weights"] != "pretrained":
        yield f"{row['weights']} weights here"
    if figure.corpus.unknown is not None:
        yield figure.corpus.unknown
    yield from _differs("language", figure.corpus.language, row["language"] or "en")
    yield from _differs("normaliser", source.normaliser, row["normaliser"])
    yield from _differs("scorer", source.scorer if figure.metric == "wer" else None, row["scorer"])
    if row["error_unit"] != "word":
        yield f"errors are counted by {row['error_unit']} here"
    yield from _differs("beams", source.beams, setting(row, "protocol", "num_beams") or 1)
    if source.timestamps:
        yield "decoded with timestamps there, without here"
    if row["long"] is not None:
        yield f"long recordings are cut here (dataset.long={row['long']})"
    if row["audio_ctx"] not in (None, "full"):
        yield f"audio_ctx={row['audio_ctx']} here: not the whole window is encoded"
    if most is not None:
        yield f"at most {most} tokens are decoded here"
    count, whole = _heard_of(row, figure)
    if whole is not None and count > whole:
        yield f"{count:,} utterances here, more than the {whole:,} of {figure.split}: another corpus"
    if ours.value is None:
        yield "no error rate here"
    elif ours.ci95 is None or (row["splits"][heard(row, figure)].get("ci_units") or MIN_UNITS) < MIN_UNITS:
        yield f"too few speakers or utterances here for an interval: it takes {MIN_UNITS}"


def _of_time(row: Row, figure: Figure) -> Iterator[str]:
    """A time is one of its machine, clocks and drivers included, and is never judged."""
    there = figure.source.hardware_of(figure.of.device) or "not said"
    environment = row["environment"]
    here = str(environment.get("gpu" if row["device"] == "cuda" else "processor") or "not recorded")
    kind = "another machine" if there.lower() in here.lower() else "other hardware"
    yield f"a time on {kind}: {there} there, {here} here"


def _differs(what: str, there: Any, here: Any) -> Iterator[str]:
    if there is not None and there != here:
        yield f"other {what}: {there} there, {here} here"


def _heard_of(row: Row, figure: Figure) -> tuple[int, int | None]:
    """Utterances of the split here, and of the whole."""
    name = heard(row, figure)
    assert name is not None
    assert figure.split is not None
    return row["splits"][name]["utterances"], figure.corpus.splits[figure.split].utterances


# What is left to be judged


def _judged(row: Row, figure: Figure, ours: _Ours) -> tuple[Verdict, list[str]]:
    assert ours.value is not None
    exponent = figure.value.as_tuple().exponent
    assert isinstance(exponent, int)
    digits = -exponent
    if figure.metric == "size_reduction":
        same = _rounded(ours.value, digits) == figure.value
        here = f"{_rounded(ours.value, digits)} % here, to the digit as published"
        return "reproduced" if same else "not reproduced", [here, *_caveats(row, figure)]
    assert ours.ci95 is not None
    low, high = (_rounded(end, digits) for end in ours.ci95)
    inside = low <= figure.value <= high
    where = "inside" if inside else "below" if figure.value < low else "above"
    part = row["splits"][heard(row, figure)]
    drawn = f" by {part['ci_units']} {part['ci_unit']}s" if part.get("ci_unit") else ""
    interval = f"{figure.value} is {where} the 95 % interval{drawn}, {low} to {high}"
    return "reproduced" if inside else "not reproduced", [interval, *_amount(row, figure), *_caveats(row, figure)]


def _rounded(value: float, digits: int) -> Decimal:
    return round(Decimal(repr(value)), digits)


def _amount(row: Row, figure: Figure) -> Iterator[str]:
    """How much of the split was heard, as a part of it may be easier or harder than the whole."""
    count, whole = _heard_of(row, figure)
    if whole is None:
        yield f"{count:,} utterances here, how many there is not known"
    elif count < whole:
        yield f"{count:,} of {whole:,} utterances"


def _caveats(row: Row, figure: Figure) -> Iterator[str]:
    """What differs, or is not known to agree, and is taken not to matter much."""
    source = figure.source
    if setting(row, "model", "path"):
        yield f"the checkpoint of model.path is taken for {figure.of.model}"
    if figure.metric not in _RATES:
        return
    if figure.of.device not in (None, row["device"]):
        yield f"device: {figure.of.device} there, {row['device']} here"
    here = row["dtype"] or "float32"  # older records do not say
    if source.dtype not in (None, here):
        yield f"what is not quantized is {source.dtype} there, {here} here"
    known = {"normaliser": source.normaliser, "beams": source.beams, "timestamps": source.timestamps}
    if unknown := [name for name, value in known.items() if value is None]:
        yield f"not said there: {', '.join(unknown)}"
