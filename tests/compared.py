"""Rows as `quantlab.report.rows.rows` gives them once cells were compared, with evidence of our own choosing."""

from __future__ import annotations

from typing import Any

from synthetic import QUANTS, result

from quantlab.report import reproduced
from quantlab.report.rows import Row, row


def uncompared(quant: str = "none", **changes: Any) -> Row:
    """A row without a baseline: every key is there, the evidence is None."""
    return row(result(quant, **changes).record)


def compared(
    quant: str,
    verdict: str = "tied",
    half: float = 0.004,
    ratio: tuple[float, float, float] | None = None,
    converged: bool = True,
    baseline: str = "base",
    **changes: Any,
) -> Row:
    """A row with intervals of ±`half` around its rates and their differences.

    `ratio` is (low, value, high) of the time against the baseline; None is protocol=paper.
    """
    is_baseline = quant == "none"
    cell_id = changes.pop("cell_id", quant)
    found = uncompared(quant, cell_id=baseline if is_baseline else cell_id, **changes)
    for name, split in found["splits"].items():
        split |= _evidence(split["wer"], split["cer"], _baseline_wer(name), half, is_baseline)
    clean, other = (found["splits"][name]["wer"] for name in ("clean", "other"))
    pooled = _evidence((clean + other) / 2, (clean + other) / 4, _baseline_wer("pooled"), half, is_baseline)
    found |= {
        "wer": (clean + other) / 2,
        "cer": (clean + other) / 4,
        "wer_ci95": pooled["wer_ci95"],
        "cer_ci95": pooled["cer_ci95"],
        "baseline": baseline,
        "verdict": "baseline" if is_baseline else verdict,
        "normaliser": "whisper",
    }
    if not is_baseline:
        found["comparison"] = {key: value for key, value in pooled.items() if "difference" in key} | {
            "p": 0.2, "p_holm": 0.4, "p_mapsswe": 0.21, "z_mapsswe": 1.25, "mde": half * 2.8 / 1.96,
            "noninferior": pooled["wer_difference_ci95"][1] < 0.005, "margin": 0.005, "unit": "utterance",
            "units": 320, "utterances": 320,
        }  # fmt: skip
    if ratio is not None and not is_baseline:
        low, value, high = ratio
        word = "no difference" if low <= 1 <= high else "faster" if high < 1 else "slower"
        found["speed"] = {
            "ratio": value, "ci95": [low, high], "converged": converged, "blocks": 12,
            "verdict": word if converged else "not converged",
        }  # fmt: skip
    return found | {"published": reproduced.compared(found)}


def _baseline_wer(split: str) -> float:
    clean, other = (round(QUANTS["none"][index] * 1280) / 1280 for index in (5, 6))
    return {"clean": clean, "other": other, "pooled": (clean + other) / 2}[split]


def _evidence(wer: float, cer: float, base: float, half: float, is_baseline: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rate, value, reference in (("wer", wer, base), ("cer", cer, base / 2)):
        difference = None if is_baseline else value - reference
        found |= {
            f"{rate}_ci95": [value - 2 * half, value + 2 * half],
            f"{rate}_difference": difference,
            f"{rate}_difference_ci95": None if difference is None else [difference - half, difference + half],
        }
    return found


def careful_grid() -> list[Row]:
    """A baseline and six quantizers, timed against it in turns; bnb and torch are level in speed."""
    ratios = {
        "torch_int8": (0.83, 0.84, 0.85), "quanto_int8": (1.30, 1.32, 1.34), "quanto_int8_static": (0.99, 1.0, 1.01),
        "hqq_int4": (1.5, 1.6, 1.7), "hqq_int3": (1.5, 1.7, 1.9), "bnb_nf4": (0.84, 0.86, 0.88),
    }  # fmt: skip
    verdicts = {"hqq_int3": "worse", "hqq_int4": "worse", "quanto_int8_static": "worse", "bnb_nf4": "underpowered"}
    return [compared("none", protocol__name="careful")] + [
        compared(quant, verdicts.get(quant, "tied"), ratio=ratio, converged=quant != "hqq_int3",
                 protocol__name="careful")
        for quant, ratio in ratios.items()
    ]  # fmt: skip


def paper_grid() -> list[Row]:
    """The same cells, each timed once."""
    return [compared(quant, verdict="tied" if "int8" in quant else "worse") for quant in QUANTS]


def of_six_utterances(quant: str, **changes: Any) -> Row:
    """A cell of six utterances: figures, and no interval."""
    item = compared(quant, **changes)
    for part in (item, *item["splits"].values(), *([item["comparison"]] if item["comparison"] else [])):
        part |= {key: None for key in part if key.endswith("ci95")}
    if item["comparison"]:
        item["comparison"] |= {"units": 6, "utterances": 6, "mde": None}
    for split in item["splits"].values():
        split["utterances"] = 3
    return item
