"""What a gate found, in words: one line for each question about a cell."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.analysis.regression.accuracy import ASKED, Accuracy
from quantlab.analysis.regression.judge import Answer, Judged, Limits, worst
from quantlab.records import labels
from quantlab.records.schema import Record
from quantlab.report.wording import between, estimate, megabytes, p_value, percent, points, ratio
from quantlab.util.counted import counted
from quantlab.util.languages import RATES

SHOWN = 8  # differences in settings and versions that are listed


def names(cells: Sequence[Judged]) -> list[str]:
    """Unique display names of the cells of a baseline, in their order."""
    named = labels.names([labels.of_record(item.before.record) for item in cells])
    return [named[item.before.record.cell_id] + _other_quantizer(item) for item in cells]


def _other_quantizer(item: Judged) -> str:
    """` → hqq_int2` if it is compared with a cell of another quantizer."""
    was, now = item.before.record.setting("quant.name"), item.now and item.now.setting("quant.name")
    return "" if now in (None, was) else f" → {now}"


def summary(cells: Sequence[Judged]) -> str:
    """`1 of 2 cells fails, 1 cannot be told: fail`."""
    outcome = worst([item.outcome for item in cells])
    counts = {name: sum(item.outcome == name for item in cells) for name in ("pass", "fail", "cannot tell")}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{outcome}: {counted(len(cells), 'cell')} of the baseline, {said}"


def line(item: Judged, answer: Answer, limits: Limits) -> str:
    """The figures that an answer rests on, or why there are none."""
    if answer.question == "accuracy" and item.accuracy is not None:
        return accuracy(item.accuracy)
    if answer.question == "size":
        assert item.now is not None
        return (
            f"{_size(item.now)} MB, at most {limits.max_size_mb:g} allowed; {_size(item.before.record)} in the baseline"
        )
    if answer.question == "speed" and item.slowdown is not None and item.slowdown.ratio is not None:
        why = f"; {answer.why}" if answer.why else ""
        return f"{speed(item)}, at most {limits.max_slowdown:g} allowed{why}"
    return answer.why


def accuracy(found: Accuracy) -> str:
    """`WER 17.17 → 17.20 %, +0.03 points [−0.20, +0.27]: a loss of 0.5 points is excluded`."""
    rate = RATES[found.error_unit]
    start = f"{rate} {percent(found.before)} → {percent(found.now)} %, {estimate(found.difference, points, ' points')}"
    return f"{start}: {_because(found)}"


def _because(found: Accuracy) -> str:
    margin, high = f"{100 * found.margin:g} points", found.difference.ci95 and found.difference.ci95[1]
    shown = f"p {_p(found.p_holm)}"
    if high is None:
        return f"too few {found.unit}s ({found.units}) to tell"
    if found.within and high < 0:
        return "better"
    if found.within:
        loss = f"a loss is shown ({shown}), but " if found.worse else ""
        return f"{loss}one of {margin} is excluded" if loss else f"a loss of {margin} is excluded"
    if found.worse:
        return f"a loss is shown ({shown}), and one of {margin} is not excluded"
    return f"no loss is shown ({shown}), but one of {margin} is not excluded"


def _p(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def notes(item: Judged) -> list[str]:
    """What readers should know beside the answers: power, texts, sizes, times, what changed."""
    found = [*item.notes]
    if (figures := item.accuracy) is not None:
        changed = figures.texts_changed
        found += [f"{changed:,} of {counted(figures.utterances, 'text')} differ from the baseline's"]
        found += [power(figures)] if figures.outcome == "cannot tell" else []
    asked = {answer.question for answer in item.answers}
    if item.now is not None and item.now.receipt is not None and "size" not in asked:
        found += [f"size {_size(item.before.record)} → {_size(item.now)} MB"]
    if item.slowdown is not None and "speed" not in asked:
        found += [f"time: {speed(item)}, not judged without --max-slowdown"]
    if item.now is not None:
        more = len(item.changed) - SHOWN
        listed = [*item.changed[:SHOWN], *([f"{more} more (--format json lists all)"] if more > 0 else [])]
        found += [f"changed: {', '.join(listed) or 'nothing that identifies the cell'}"]
    return found


def power(found: Accuracy) -> str:
    """`400 utterances of 25 speakers find a loss of 1 point with a probability of 36 %, of …`."""
    of = f" of {found.units} speakers" if found.unit == "speaker" else ""
    said = f"{counted(found.utterances, 'utterance')}{of}"
    if found.power is None or found.findable is None:
        return f"{said}: too few to find a loss"
    one = f"{100 * ASKED:g} point with a probability of {100 * found.power:.0f} %"
    return f"{said} find a loss of {one}, of {100 * found.findable:.1f} points with 80 %"


def speed(item: Judged) -> str:
    """`× 1.02 [0.99, 1.05] of the baseline's time (of 25 batches, …)`, or why it is not known."""
    found = item.slowdown
    assert found is not None
    if found.ratio is None:
        return found.how
    value, low, high = found.ratio
    return f"× {ratio(value)}{between((low, high), ratio)} of the baseline's time ({found.how})"


def _size(record: Record) -> str:
    return megabytes(record.receipt.size_bytes) if record.receipt is not None else "?"
