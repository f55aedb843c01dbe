"""Formatting of figures and names for people, shared by terminal, documents and plots."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from quantlab.config.quant import is_chosen_by_data
from quantlab.config.schema import StatsConfig
from quantlab.records import labels
from quantlab.records.schema import Adaptive
from quantlab.report.against import asked_for
from quantlab.report.cell_summary import CellSummary, Compared, Rate
from quantlab.stats.bootstrap import MIN_UNITS
from quantlab.stats.estimate import Estimate, Interval
from quantlab.util import reasons
from quantlab.util.counted import counted
from quantlab.util.languages import RATES

ABSENT = "–"
MB = 1_000_000  # bytes
MINUS = "−"
_MUCH = 0.25  # share of the model's size
_NAMED = 3  # most cells named in one line
_LEAST_CALIBRATION = 16  # utterances; see docs/reference/quantizers.md
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def percent(fraction: float, digits: int = 2) -> str:
    """`0.0312` → `3.12`; a value that rounds to 0 has no sign."""
    text = f"{100 * fraction:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def points(fraction: float, digits: int = 2) -> str:
    """A difference of two rates in percentage points, with its sign: `-0.002` → `−0.20`."""
    text = f"{100 * fraction:+.{digits}f}"
    return "0." + "0" * digits if float(text) == 0 else text.replace("-", MINUS)


def megabytes(size_bytes: float) -> str:
    return f"{size_bytes / MB:.1f}"


def three_digits(value: float) -> str:
    """Three significant digits, e.g. for an RTF."""
    return f"{value:#.3g}".removesuffix(".") if value >= 1e-4 else f"{value:.2e}"


def ratio(value: float) -> str:
    return f"{value:.2f}"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def half_width(value: float, ci95: Interval) -> str:
    """`0.84 ±0.01`: half-width of the 95 % interval, rounded up to the shown digits; never ±0.00."""
    half = max((ci95[1] - ci95[0]) / 2, 0.005)
    return f"{value:.2f} ±{half:.2f}"


def between(ci95: Interval | None, show: Callable[[float], str]) -> str:
    """` [2.40, 3.91]`, with a leading space; empty without an interval."""
    return "" if ci95 is None else f" [{show(ci95[0])}, {show(ci95[1])}]"


def estimate(found: Estimate, show: Callable[[float], str], unit: str = "") -> str:
    """`3.12 % [2.40, 3.91]`: a figure, its unit, and its interval if any."""
    return f"{show(found.value)}{unit}{between(found.ci95, show)}"


def rate_name(rows: Sequence[CellSummary]) -> str:
    """Name of the error rate `wer` of these rows: WER or CER, by the unit of the rows that have one."""
    units = {row.record.error_unit for row in rows if row.wer is not None} or {"word"}
    return " or ".join(name for unit, name in RATES.items() if unit in units)


def scorings(rows: Sequence[CellSummary]) -> dict[tuple[str, str], str]:
    """Normaliser and scorer of these rows' error rates → how to name them."""
    pairs = dict.fromkeys((row.record.normaliser, row.record.scorer) for row in rows if row.wer is not None)
    aside = {"jiwer": ""}  # both scorers count characters with it
    return {
        (normaliser, scorer): f"normaliser {normaliser}, scorer {scorer}{aside.get(scorer, ' (CER: jiwer)')}"
        for normaliser, scorer in pairs
    }


def rate_columns(
    rows: Sequence[CellSummary], rate: Rate
) -> list[tuple[tuple[str, ...], Callable[[CellSummary], bool]]]:
    """Columns of an error rate; figures of different normalisers or scorers never share a column.

    Returns:
        For each column: words that distinguish it (empty if it is the only one), and which rows belong to it.
    """
    keys = 2 if rate == "wer" else 1

    def way(row: CellSummary) -> tuple[str, ...]:
        return (row.record.normaliser, row.record.scorer)[:keys]

    def stands_in(one: tuple[str, ...], row: CellSummary) -> bool:
        return way(row) == one

    ways = list(dict.fromkeys(way(row) for row in rows if row.rate(rate) is not None))
    differing = [index for index in range(keys) if len({one[index] for one in ways}) > 1]
    return [(tuple(one[index] for index in differing), partial(stands_in, one)) for one in ways]


def utterances(count: int) -> str:
    return counted(count, "utterance")


def names(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → unique display name, e.g. `nano-hqq_int4-cpu`."""
    return labels.names([row.named for row in rows])


def models(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → model, with whatever distinguishes its checkpoint from others of this name."""
    return labels.checkpoints([row.named for row in rows])


def corpora(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → corpus, with whatever distinguishes it from others of this name."""
    return labels.corpora([row.named for row in rows])


def methods(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → quantizer, with as many further settings as needed to be unique within a device."""
    found: dict[str, str] = {}
    for device in {row.settings.device for row in rows}:
        some = [row for row in rows if row.settings.device == device]
        plain = {row.cell_id: str(row.settings.quant) for row in some}
        found |= labels.made_unique([row.named for row in some], plain)
    return found


def figure_name(item: Compared) -> str:
    """Name of a published figure: `WER % test-clean`, `smaller by %`, `rtf`."""
    rate = {"percent": " %", "fraction": ""}.get(item.unit or "", "")
    named = {"wer": f"WER{rate}", "cer": f"CER{rate}", "size_reduction": "smaller by %"}
    return " ".join(filter(None, (named.get(item.metric, item.metric), item.split)))


def published(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Verdict, cell and source, and each figure with the measured one; those that are not comparable are counted."""
    figures_of: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for item in row.published:
            of = (item.verdict, f"{called[row.cell_id]}, {item.source}")
            figures_of.setdefault(of, []).append(f"{figure_name(item)} {item.published} published{_here(item)}")
    yield from ((*of, ", ".join(figures)) for of, figures in figures_of.items() if of[0] != "not comparable")
    if other := [len(figures) for (verdict, _), figures in figures_of.items() if verdict == "not comparable"]:
        rest = counted(sum(other), "published figure")
        yield "not comparable", rest, "--format markdown, html or json gives the reason for each"


def _here(item: Compared) -> str:
    """` and 3.4 [1.2, 7.5] here`: the measured value, with as many digits as the published one."""
    digits = len(item.published.partition(".")[2])
    return "" if item.measured is None else f" and {estimate(item.measured, lambda value: f'{value:.{digits}f}')} here"


def too_few(rows: Sequence[CellSummary]) -> Iterator[tuple[str, str]]:
    """Corpora with too few utterances for an interval: corpus, consequence."""
    named = corpora(rows)
    for row in {named[row.cell_id]: row for row in rows if row.splits}.values():
        if row.wer is not None and 0 < row.utterances < MIN_UNITS:
            measured = utterances(row.utterances)
            what = f"{measured}; an interval needs {MIN_UNITS}, so no cell is shown to be better or worse"
            yield named[row.cell_id], what


def underpowered(rows: Sequence[CellSummary]) -> Iterator[str]:
    """Explanation of the verdict, once per margin among the underpowered cells."""
    some = [row for row in rows if row.verdict == "underpowered"]
    for margin in sorted({row.comparison.margin for row in some if row.comparison is not None}):
        yield (
            f"too few utterances to show either a difference from {asked_for(some) or 'the baseline'} "
            f"(Holm-corrected over all comparisons) or an increase of {rate_name(some)} below {100 * margin:g} points"
        )


def used_share(adaptive: Adaptive) -> str:
    """How much of the corpus a cell used."""
    return f"{100 * adaptive.used / adaptive.available:.0f} %"


def stopped(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells that stopped early, and how much of the corpus their rates are of; as `noise`."""
    notes = (
        (row, f"error rates are those of {used_share(used)} of the corpus, as the verdict was known then")
        for row in rows
        if row.stopped_early and (used := row.record.adaptive) is not None
    )
    yield from _once(notes, called)


def why_stopped(rows: Sequence[CellSummary]) -> str | None:
    """What a stopped cell is, for readers; None if there is none."""
    if not any(row.stopped_early for row in rows):
        return None
    return (
        "Cells that stopped early (protocol.looks) were compared with their baseline repeatedly, on the utterances "
        "measured until then, and were stopped when the verdict was shown. Their boundaries allow for that, and for "
        "the number of cells. Their rates are those of the utterances they used."
    )


def tied(rows: Sequence[CellSummary]) -> Iterator[str]:
    """Explanation of the verdict where its margin is not the usual one."""
    some = [row for row in rows if row.verdict == "tied"]
    for margin in sorted({row.comparison.margin for row in some if row.comparison is not None}):
        if not math.isclose(100 * margin, StatsConfig().margin):
            yield f"an increase of {rate_name(some)} below {100 * margin:g} points is shown, the margin of this report"


def problems(rows: Sequence[CellSummary]) -> Iterator[tuple[str, str, str]]:
    """Utterances left out, or measured despite a problem: kind, corpus, number and problem.

    Listed once per corpus and number.
    """
    first_cell: dict[tuple[str, str, str], str] = {}
    named = corpora(rows)
    for row in rows:
        for which, measured in (("not measured", False), ("doubtful", True)):
            kinds = Counter(item.kind for item in row.record.problems if item.measured is measured)
            if kinds:
                by_kind = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
                found = f"{utterances(kinds.total())} ({by_kind})"
                first_cell.setdefault((which, named[row.cell_id], found), row.cell_id)
    for (which, corpus, found), cell_id in first_cell.items():
        yield which, corpus, f"{found}, named in cells/{cell_id}/record.json"


def embedding_left(row: CellSummary) -> str | None:
    """Note that much of a quantized model is its unquantized token embedding; None if it is a small share."""
    left, size = row.embedding_bytes, row.size_bytes
    if left is None or size is None or left < _MUCH * size:
        return None
    return (
        f"{megabytes(left)} of {megabytes(size)} MB are the token embedding, which is not quantized; "
        "quant.embedding=true does it with HQQ, torchao or 8 bit of quanto"
    )


def sizes(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Notes on unexpectedly large models: cells, reason; cells of a checkpoint are joined."""
    found: dict[tuple[str, int | None], list[CellSummary]] = {}
    for row in rows:
        if embedding_left(row):
            found.setdefault((row.model, row.embedding_bytes), []).append(row)
    for some in found.values():
        yield _some([called[row.cell_id] for row in some]), _joined([embedding_left(row) or "" for row in some])


def no_verdict(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Measured cells without a reference, and why; the first of the cells with the same reason are named."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if (
            row.ok
            and row.reference is None
            and (why := row.no_baseline if row.against is None else row.against.missing)
        ):
            found.setdefault(why, []).append(called[row.cell_id])
    yield from ((listed(cells), why) for why, cells in found.items())


def compared_elsewhere(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells of a bundle that are compared with a cell of another machine; as `noise`."""
    found = (
        (row, f"verdicts are on texts alone, against fp32 on another machine, cell {row.baseline}")
        for row in rows
        if row.is_compared_elsewhere and row.comparison is not None
    )
    yield from _once(found, called)


def noise(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What disturbed the timing of cells: cells, flag. Flags that differ only in numbers are joined.

    Args:
        rows: the cells.
        called: cell id → display name.
    """
    yield from _once(((row, flag) for row in rows for flag in row.flags), called)


def loops(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells with looping utterances, and the errors in these; as `noise`."""
    yield from _once(((row, what) for row in rows if (what := looping(row)) is not None), called)


def looping(row: CellSummary) -> str | None:
    """`1 of 92 utterances loops: 213 of 418 errors`; None if none loops, or an older record lacks the number."""
    splits = row.record.splits.values()
    count, errors = sum(split.loops or 0 for split in splits), sum(split.loop_errors or 0 for split in splits)
    total = sum(split.errors or 0 for split in splits)
    verb = "loops" if count == 1 else "loop"
    return f"{count} of {utterances(row.utterances)} {verb}: {errors} of {total} errors" if count else None


def depends_on_batch(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells with one activation scale per batch, so that a text depends on the other utterances of its batch."""
    dynamic = [row for row in rows if row.settings.scheme == "dynamic"]
    some = [
        row
        for row in dynamic
        if row.settings.library in ("torch", "smoothquant", "ort") or row.settings.format == "float8_e4m3fn"
    ]  # per tensor
    what = "one scale for the activations of a batch of {}: a text may depend on its neighbours in the batch"
    batched = [row for row in some if row.ok and (row.settings.batch_size or 1) > 1]
    yield from _once(((row, what.format(row.settings.batch_size)) for row in batched), called)


def little_calibration(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells whose weights were chosen or trained by so few utterances that more would be better."""
    keys = ("quant.library", "quant.method", "quant.recover")
    chosen = [row for row in rows if row.ok and is_chosen_by_data(*map(row.record.setting, keys))]
    counts = [(row, len(row.record.calibration_ids)) for row in chosen]
    what = f"calibrate: {_LEAST_CALIBRATION} or more give better weights"
    few = ((row, f"{utterances(count)} {what}") for row, count in counts if count < _LEAST_CALIBRATION)
    yield from _once(few, called)


def failures(rows: Sequence[CellSummary]) -> Iterator[tuple[list[CellSummary], str, str]]:
    """Cells that were not measured, by reason: cells, status, reason (may be empty)."""
    found: dict[Hashable, list[CellSummary]] = {}
    for row in rows:
        if not row.ok:
            found.setdefault(reasons.key(row.status, row.record.reason or "", row.record.setting), []).append(row)
    for some in found.values():
        yield some, some[0].status, reasons.joined([row.record.reason or "" for row in some])


def enumerated(called: Sequence[str]) -> str:
    """All names, preceded by their number if there are several."""
    return f"{len(called)} cells ({', '.join(called)})" if len(called) > 1 else called[0]


def together(notes: Iterable[tuple[CellSummary, str]], called: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    """Names of cells and their note; notes that differ only in numbers are joined."""
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for row, text in notes:
        found.setdefault(tuple(_NUMBER.split(text)), []).append((called[row.cell_id], text))
    for some in found.values():
        yield [name for name, _ in some], _joined([text for _, text in some])


def _once(notes: Iterable[tuple[CellSummary, str]], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """As `together`, but many cells are counted instead of named."""
    yield from ((_some(cells), what) for cells, what in together(notes, called))


def _some(called: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(called))
    return ", ".join(distinct) if len(distinct) <= _NAMED else f"{len(distinct)} cells"


def _joined(flags: Sequence[str]) -> str:
    """Join notes that differ only in numbers; each number becomes a range."""
    columns = zip(*(_NUMBER.findall(flag) for flag in flags), strict=True)
    spans = [sorted(set(column), key=float) for column in columns]
    shown = iter(span[0] if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans)
    return _NUMBER.sub(lambda match: next(shown), flags[0])


def listed(items: Sequence[str], most: int = 4) -> str:
    """The first few items, and the number of the others."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
