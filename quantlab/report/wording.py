"""How a figure is written wherever a person reads it: the terminal, a document, a plot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from quantlab.records import labels
from quantlab.report.cell_summary import CellSummary, Compared, Rate
from quantlab.stats.bootstrap import MIN_UNITS
from quantlab.stats.estimate import Estimate, Interval
from quantlab.util import reasons
from quantlab.util.languages import RATES

ABSENT = "–"
MB = 1_000_000  # bytes
MINUS = "−"
_MUCH = 0.25  # of a model's size
_NAMED = 3  # cells by name in a line about several
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def percent(fraction: float, digits: int = 2) -> str:
    """`0.0312` → `3.12`; what rounds to 0 has no sign."""
    text = f"{100 * fraction:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def points(fraction: float, digits: int = 2) -> str:
    """A difference of two rates in percentage points, with its sign: `-0.002` → `−0.20`."""
    text = f"{100 * fraction:+.{digits}f}"
    return "0." + "0" * digits if float(text) == 0 else text.replace("-", MINUS)


def megabytes(size_bytes: float) -> str:
    return f"{size_bytes / MB:.1f}"


def three_digits(value: float) -> str:
    """Three significant digits, as an RTF needs them."""
    return f"{value:#.3g}".removesuffix(".") if value >= 1e-4 else f"{value:.2e}"


def ratio(value: float) -> str:
    return f"{value:.2f}"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def half_width(value: float, ci95: Interval) -> str:
    """`0.84 ±0.01`: half of the 95 % interval, rounded up to what is shown; never ±0.00."""
    half = max((ci95[1] - ci95[0]) / 2, 0.005)
    return f"{value:.2f} ±{half:.2f}"


def between(ci95: Interval | None, show: Callable[[float], str]) -> str:
    """` [2.40, 3.91]`, with a space before it, or nothing where there is no interval."""
    return "" if ci95 is None else f" [{show(ci95[0])}, {show(ci95[1])}]"


def estimate(found: Estimate, show: Callable[[float], str], unit: str = "") -> str:
    """`3.12 % [2.40, 3.91]`: a figure, its unit, and its interval if it has one."""
    return f"{show(found.value)}{unit}{between(found.ci95, show)}"


def rate_name(rows: Sequence[CellSummary]) -> str:
    """What the error rate `wer` of these rows is called: by its unit, of those that have one."""
    units = {row.record.error_unit for row in rows if row.wer is not None} or {"word"}
    return " or ".join(name for unit, name in RATES.items() if unit in units)


def scorings(rows: Sequence[CellSummary]) -> dict[tuple[str, str], str]:
    """The normaliser and the scorer of these rows' error rates, of those that have one, and how a person is told."""
    pairs = dict.fromkeys((row.record.normaliser, row.record.scorer) for row in rows if row.wer is not None)
    aside = {"jiwer": ""}  # it counts characters by either
    return {
        (normaliser, scorer): f"normaliser {normaliser}, scorer {scorer}{aside.get(scorer, ' (CER: jiwer)')}"
        for normaliser, scorer in pairs
    }


def apart(rows: Sequence[CellSummary], rate: Rate) -> list[tuple[tuple[str, ...], Callable[[CellSummary], bool]]]:
    """The columns that an error rate takes, as figures of two normalisers or scorers never stand in one.

    Returns:
        Of each: what tells it from the others, nothing where it is the only one; and which rows stand in it.
    """
    keys = 2 if rate == "wer" else 1

    def way(row: CellSummary) -> tuple[str, ...]:
        return (row.record.normaliser, row.record.scorer)[:keys]

    def stands_in(one: tuple[str, ...], row: CellSummary) -> bool:
        return way(row) == one

    ways = list(dict.fromkeys(way(row) for row in rows if row.rate(rate) is not None))
    told = [index for index in range(keys) if len({one[index] for one in ways}) > 1]
    return [(tuple(one[index] for index in told), partial(stands_in, one)) for one in ways]


def utterances(count: int) -> str:
    return f"{count:,} utterance{'' if count == 1 else 's'}"


def unquantized(row: CellSummary) -> str:
    """What a person calls the baseline of a cell: by its type."""
    return str(row.settings.dtype) if row.settings.is_half else "fp32"


def reference(rows: Sequence[CellSummary]) -> str:
    """What these rows are compared with, where one word has to do for all."""
    stored = {unquantized(row) for row in rows}
    return stored.pop() if len(stored) == 1 else "the baseline"


def names(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → what a person calls the cell, e.g. `nano-hqq_int4-cpu`, with what tells it from the others."""
    return labels.names([row.named for row in rows])


def models(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → model, with what tells its checkpoint from others of this name."""
    return labels.checkpoints([row.named for row in rows])


def corpora(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → corpus, with what tells it from others of this name."""
    return labels.corpora([row.named for row in rows])


def methods(rows: Sequence[CellSummary]) -> dict[str, str]:
    """Cell id → quantizer, with as many further settings as it takes to tell the cells of a device apart."""
    found: dict[str, str] = {}
    for device in {row.settings.device for row in rows}:
        some = [row for row in rows if row.settings.device == device]
        plain = {row.cell_id: str(row.settings.quant) for row in some}
        found |= labels.told_apart([row.named for row in some], plain)
    return found


def figure_name(item: Compared) -> str:
    """What a published figure is of: `WER % test-clean`, `smaller by %`, `rtf`."""
    rate = {"percent": " %", "fraction": ""}.get(item.unit or "", "")
    named = {"wer": f"WER{rate}", "cer": f"CER{rate}", "size_reduction": "smaller by %"}
    return " ".join(filter(None, (named.get(item.metric, item.metric), item.split)))


def published(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Verdict, cell and source, and the figures with our intervals; of those that do not compare, how many."""
    told: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for item in row.published:
            of = (item.verdict, f"{called[row.cell_id]}, {item.source}")
            told.setdefault(of, []).append(f"{figure_name(item)} {item.published}{_interval(item)}")
    yield from ((*of, ", ".join(figures)) for of, figures in told.items() if of[0] != "not comparable")
    if other := [len(figures) for (verdict, _), figures in told.items() if verdict == "not comparable"]:
        rest = f"{sum(other)} published figures"
        yield "not comparable", rest, "--format markdown, html or json gives the reason of each"


def _interval(item: Compared) -> str:
    """Of what was measured, with as many digits as were published."""
    digits = len(item.published.partition(".")[2])
    return between(item.measured and item.measured.ci95, lambda value: f"{value:.{digits}f}")


def too_few(rows: Sequence[CellSummary]) -> Iterator[tuple[str, str]]:
    """Corpora of which so little was heard that no interval can be given: corpus, what that means."""
    named = corpora(rows)
    for row in {named[row.cell_id]: row for row in rows if row.splits}.values():
        if row.wer is not None and 0 < row.utterances < MIN_UNITS:
            heard = utterances(row.utterances)
            what = f"{heard}; an interval needs {MIN_UNITS}, so no cell is shown to be better or worse"
            yield named[row.cell_id], what


def underpowered(rows: Sequence[CellSummary]) -> Iterator[str]:
    """What this verdict means, for each margin that a cell has it at."""
    some = [row for row in rows if row.verdict == "underpowered"]
    for margin in sorted({row.comparison.margin for row in some if row.comparison is not None}):
        worse = f"{100 * margin:g} points of {rate_name(some)} worse than its baseline"
        yield f"too few utterances to show that the cell is {worse}, or that it is not"


def problems(rows: Sequence[CellSummary]) -> Iterator[tuple[str, str, str]]:
    """Utterances left out, and those measured though something is wrong with them: which, corpus, how many of what.

    Once for each corpus and number.
    """
    told: dict[tuple[str, str, str], str] = {}
    named = corpora(rows)
    for row in rows:
        for which, measured in (("not measured", False), ("doubtful", True)):
            kinds = Counter(item.kind for item in row.record.problems if item.measured is measured)
            if kinds:
                counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
                found = f"{utterances(kinds.total())} ({counted})"
                told.setdefault((which, named[row.cell_id], found), row.cell_id)
    for (which, corpus, found), cell_id in told.items():
        yield which, corpus, f"{found}, named in cells/{cell_id}/record.json"


def embedding_left(row: CellSummary) -> str | None:
    """That much of a small model is the token embedding, where it is; None where it is little."""
    left, size = row.embedding_bytes, row.size_bytes
    if left is None or size is None or left < _MUCH * size:
        return None
    return (
        f"{megabytes(left)} of {megabytes(size)} MB are the token embedding, which is not quantized; "
        "quant.embedding=true does it with HQQ, torchao or 8 bit of quanto"
    )


def sizes(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Sizes that look like a mistake: cells, why they are so large; the cells of a checkpoint together."""
    found: dict[tuple[str, int | None], list[CellSummary]] = {}
    for row in rows:
        if embedding_left(row):
            found.setdefault((row.model, row.embedding_bytes), []).append(row)
    for some in found.values():
        smallest = min(some, key=lambda row: row.size_bytes or 0)
        yield _some([called[row.cell_id] for row in some]), embedding_left(smallest) or ""


def no_baseline(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells that cannot be compared with anything, and why; as `noise`."""
    lone = (row for row in rows if row.ok and row.baseline is None)
    yield from _once(((row, row.no_baseline) for row in lone if row.no_baseline), called)


def noise(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What else went on while cells were timed: cells, flag; once for those that differ in no more than a number.

    Args:
        rows: the cells.
        called: cell id → name.
    """
    yield from _once(((row, flag) for row in rows for flag in row.flags), called)


def loops(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells in which an utterance loops, and how many of the errors are in it; as `noise`."""
    yield from _once(((row, what) for row in rows if (what := looping(row)) is not None), called)


def looping(row: CellSummary) -> str | None:
    """`1 of 92 utterances loops: 213 of 418 errors`; None where none does, or an earlier record does not say."""
    splits = row.record.splits.values()
    count, errors = sum(split.loops or 0 for split in splits), sum(split.loop_errors or 0 for split in splits)
    total = sum(split.errors or 0 for split in splits)
    verb = "loops" if count == 1 else "loop"
    return f"{count} of {utterances(row.utterances)} {verb}: {errors} of {total} errors" if count else None


def depends_on_batch(rows: Sequence[CellSummary], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Cells whose activations get one scale for a whole batch, so that a text depends on what else is in it."""
    dynamic = [row for row in rows if row.settings.scheme == "dynamic"]
    some = [
        row for row in dynamic if row.settings.library == "torch" or row.settings.format == "float8_e4m3fn"
    ]  # per tensor
    what = "one scale for the activations of a batch of {}: a text may depend on its neighbours in the batch"
    batched = [row for row in some if row.ok and (row.settings.batch_size or 1) > 1]
    yield from _once(((row, what.format(row.settings.batch_size)) for row in batched), called)


def failures(rows: Sequence[CellSummary]) -> Iterator[tuple[list[CellSummary], str, str]]:
    """Cells that did not end well, by reason: the cells, their status, the reason or nothing."""
    found: dict[Hashable, list[CellSummary]] = {}
    for row in rows:
        if not row.ok:
            found.setdefault(reasons.key(row.status, row.record.reason or "", row.record.setting), []).append(row)
    for some in found.values():
        yield some, some[0].status, reasons.joined([row.record.reason or "" for row in some])


def counted(called: Sequence[str]) -> str:
    """All by name, and how many where they are several."""
    return f"{len(called)} cells ({', '.join(called)})" if len(called) > 1 else called[0]


def together(told: Iterable[tuple[CellSummary, str]], called: Mapping[str, str]) -> Iterator[tuple[list[str], str]]:
    """Cells by name and what is said of them, once for those that differ in no more than numbers."""
    found: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for row, text in told:
        found.setdefault(tuple(_NUMBER.split(text)), []).append((called[row.cell_id], text))
    for some in found.values():
        yield [name for name, _ in some], _joined([text for _, text in some])


def _once(told: Iterable[tuple[CellSummary, str]], called: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """As `together`, many cells as their number."""
    yield from ((_some(cells), what) for cells, what in together(told, called))


def _some(called: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(called))
    return ", ".join(distinct) if len(distinct) <= _NAMED else f"{len(distinct)} cells"


def _joined(flags: Sequence[str]) -> str:
    """The same words with each number, or the smallest and the largest of them."""
    columns = zip(*(_NUMBER.findall(flag) for flag in flags), strict=True)
    spans = [sorted(set(column), key=float) for column in columns]
    shown = iter(span[0] if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans)
    return _NUMBER.sub(lambda match: next(shown), flags[0])


def listed(items: Sequence[str], most: int = 4) -> str:
    """The first few by name, and how many more."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
