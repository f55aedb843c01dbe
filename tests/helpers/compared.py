"""Summaries as `quantlab.report.summaries` gives them once cells were compared, with evidence of our own choosing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from helpers.synthetic import QUANTS, result
from quantlab.analysis.evidence import Comparison, Evidence, SplitEvidence
from quantlab.records.schema import Speed
from quantlab.report.cell_summary import CellSummary
from quantlab.report.summaries import summary
from quantlab.stats.estimate import Estimate


def uncompared(quant: str = "none", **changes: Any) -> CellSummary:
    """A cell without a baseline: the evidence is None."""
    return summary(result(quant, **changes).record)


def changed(cell: CellSummary, **fields: Any) -> CellSummary:
    """The cell with other fields of its record."""
    return replace(cell, record=cell.record.model_copy(update=fields))


def split_changed(cell: CellSummary, *names: str, **figures: Any) -> CellSummary:
    """The cell with other figures in these splits, in all if none is named."""
    splits = {
        name: split.model_copy(update=figures) if name in names or not names else split
        for name, split in cell.record.splits.items()
    }
    return changed(cell, splits=splits)


def compared(
    quant: str,
    verdict: str = "tied",
    half: float | None = 0.004,
    ratio: tuple[float, float, float] | None = None,
    converged: bool = True,
    baseline: str = "base",
    **changes: Any,
) -> CellSummary:
    """A cell with intervals of ±`half` around its rates and their differences; None for cells without any.

    `ratio` is (low, value, high) of the time against the baseline; None is protocol=paper.
    """
    is_baseline = quant == "none"
    cell_id = changes.pop("cell_id", quant)
    found = uncompared(quant, cell_id=baseline if is_baseline else cell_id, **changes)
    splits = {
        name: _split(split.result.wer, split.result.cer, _baseline_wer(name), half, is_baseline)
        for name, split in found.splits.items()
    }
    pooled = _split(found.wer.value, found.cer.value, _baseline_wer("pooled"), half, is_baseline)
    comparison = None if is_baseline else _comparison(pooled, half)
    word = "baseline" if is_baseline else verdict
    evidence = Evidence(baseline, word, pooled.wer_ci95, pooled.cer_ci95, comparison, splits)
    speed = None if ratio is None or is_baseline else _speed(*ratio, converged)
    return summary(found.record.model_copy(update={"speed": speed}), evidence)


def _comparison(pooled: SplitEvidence, half: float | None) -> Comparison:
    high = None if half is None else pooled.wer_difference.ci95[1]
    return Comparison(
        pooled.wer_difference, pooled.cer_difference, p=0.2, p_holm=0.4, p_mapsswe=0.21, z_mapsswe=1.25,
        mde=half and half * 2.8 / 1.96, noninferior=high is not None and high < 0.005, margin=0.005, unit="utterance",
        units=320, utterances=320,
    )  # fmt: skip


def _speed(low: float, value: float, high: float, converged: bool) -> Speed:
    word = "no difference" if low <= 1 <= high else "faster" if high < 1 else "slower"
    word = word if converged else "not converged"
    return Speed(ratio=value, ci95=(low, high), converged=converged, blocks=12, verdict=word)


def _baseline_wer(split: str) -> float:
    clean, other = (round(QUANTS["none"][index] * 1280) / 1280 for index in (5, 6))
    return {"clean": clean, "other": other, "pooled": (clean + other) / 2}[split]


def _split(wer: float, cer: float, base: float, half: float | None, is_baseline: bool) -> SplitEvidence:
    def around(value: float, half: float | None) -> Estimate:
        return Estimate(value, half and (value - half, value + half))

    wide = half and 2 * half
    return SplitEvidence(
        wer_ci95=around(wer, wide).ci95,
        cer_ci95=around(cer, wide).ci95,
        wer_difference=None if is_baseline else around(wer - base, half),
        cer_difference=None if is_baseline else around(cer - base / 2, half),
    )


def careful_grid() -> list[CellSummary]:
    """A baseline and six quantizers, timed against it in turns; bnb and torch are level in speed."""
    ratios = {
        "torch_int8": (0.83, 0.84, 0.85), "quanto_int8": (1.30, 1.32, 1.34), "quanto_int8_static": (0.99, 1.0, 1.01),
        "hqq_int4": (1.5, 1.6, 1.7), "hqq_int3": (1.5, 1.7, 1.9), "bnb_nf4": (0.84, 0.86, 0.88),
    }  # fmt: skip
    verdicts = {"hqq_int3": "worse", "hqq_int4": "worse", "quanto_int8_static": "worse", "bnb_nf4": "underpowered"}
    return [compared("none", protocol__name="careful", protocol__interleave=True)] + [
        compared(quant, verdicts.get(quant, "tied"), ratio=ratio, converged=quant != "hqq_int3",
                 protocol__name="careful", protocol__interleave=True)
        for quant, ratio in ratios.items()
    ]  # fmt: skip


def paper_grid() -> list[CellSummary]:
    """The same cells, each timed once."""
    return [compared(quant, verdict="tied" if "int8" in quant else "worse") for quant in QUANTS]


def of_six_utterances(quant: str, **changes: Any) -> CellSummary:
    """A cell of six utterances: figures, and no interval."""
    item = compared(quant, half=None, **changes)
    comparison = item.comparison and replace(item.comparison, units=6, utterances=6)
    return split_changed(replace(item, evidence=replace(item.evidence, comparison=comparison)), utterances=3)
