"""Tables II and III of Andreyev (arXiv 2503.09905) in the form of the study, from records of `experiment=andreyev`.

    python benchmarks/andreyev_tables.py mlruns
    python benchmarks/andreyev_tables.py docs/results/andreyev.tar.xz

Published figures stand in brackets. They are of another machine, other recordings, five beams and fallbacks: none of
them is judged here. Table III has, besides the study's columns, the other two variants: streaming and times of words.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from quantlab.records.archive import unpacked
from quantlab.records.schema import EngineStages, Record, SplitResult
from quantlab.report.cell_summary import CellSummary
from quantlab.report.published import load
from quantlab.report.summaries import summaries

FORMATS = {"none": "fp32 (PyTorch)", "ggml_f16": "f16", "ggml_q4_0": "INT4", "ggml_q5_0": "INT5", "ggml_q8_0": "INT8"}
STAGES = {"load": False, "mel": False, "sample": True, "encode": True, "decode": True, "batchd": True, "prompt": True,
          "total": False}  # fmt: skip
MS, MB, PERCENT = 1e3, 1e-6, 100.0


def main() -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder or archive of records")
    with unpacked(parser.parse_args().root) as root:
        measured = [cell for cell in summaries(root) if cell.record.status == "ok"]
    if len(measured) != len({str(cell.record.setting("quant.name")) for cell in measured}):
        parser.error("these records have a quantizer more than once: give those of one model and one setting")
    found = {str(cell.record.setting("quant.name")): cell for cell in measured}
    cells = {quant: found[quant] for quant in FORMATS if quant in found}
    print("\n".join([*_stages(cells), "", *_formats(cells)]))


def _stages(cells: dict[str, CellSummary]) -> Iterable[str]:
    """Table II: milliseconds of each stage; a stage that has runs is divided by them."""
    timed = {quant: stages for quant, cell in cells.items() if (stages := cell.record.engine_stages) is not None}
    yield from _head(["stage, ms", *(FORMATS[quant] for quant in timed), "quantized, not said how"])
    for stage, each in STAGES.items():
        metric = f"{stage}_ms_per_run" if each else f"{stage}_ms"
        ours = [_beside(_milliseconds(found, stage, each), _published(quant, metric)) for quant, found in timed.items()]
        yield _line([f"{stage} /run" if each else stage, *ours, _beside("", _published(None, metric)).strip()])


def _milliseconds(stages: EngineStages, stage: str, each: bool) -> str:
    runs = getattr(stages, f"{stage}_runs") if each else 1
    return "–" if runs is None else f"{getattr(stages, f'{stage}_s') * MS / max(runs, 1):.2f}"


def _formats(cells: dict[str, CellSummary]) -> Iterable[str]:
    """Table III, transposed, for all splits together; figures of streams and words are of the first split."""
    rows: dict[str, tuple[str | None, Callable[[CellSummary], str]]] = {
        "WER": ("wer", lambda cell: f"{_wer(cell.record):.4f}"),
        "accuracy, %": ("accuracy", lambda cell: f"{PERCENT * (1 - _wer(cell.record)):.1f}"),
        "model size, MB": ("size_mb", lambda cell: f"{cell.record.receipt.size_bytes * MB:.2f}"),  # type: ignore[union-attr]
        "average latency, s": ("latency_s", lambda cell: f"{_latency_s(cell.record):.2f}"),
        "WER streamed": (None, lambda cell: _stream(cell, "wer", digits=4)),
        "first words after, s (p50)": (None, lambda cell: _stream(cell, "first_text_p50_s")),
        "lag at the end, s (p50)": (None, lambda cell: _stream(cell, "lag_p50_s")),
        "words taken back, %": (None, lambda cell: _stream(cell, "taken_back_share", PERCENT, digits=1)),
        "starts of words, ms from fp32's (median)": (None, _starts),
    }
    yield from _head(["", *(FORMATS[quant] for quant in cells)])
    for name, (metric, figure) in rows.items():
        there = [None if metric is None else _published(quant, metric) for quant in cells]
        yield _line([name, *map(_beside, map(figure, cells.values()), there)])


def _wer(record: Record) -> float:
    found = list(record.splits.values())
    errors = sum((item.substitutions or 0) + (item.deletions or 0) + (item.insertions or 0) for item in found)
    return errors / sum(item.ref_words or 0 for item in found)


def _latency_s(record: Record) -> float:
    """Seconds of `generate` per utterance."""
    splits = record.splits.values()
    return sum(item.generate_s for item in splits) / sum(item.utterances for item in splits)


def _stream(cell: CellSummary, name: str, scale: float = 1.0, digits: int = 2) -> str:
    found = _first(cell.record).streaming
    value = None if found is None else getattr(found, name)
    return "–" if value is None else f"{scale * value:.{digits}f}"


def _starts(cell: CellSummary) -> str:
    found = next(iter(cell.word_times.values()), None)
    return "–" if found is None or found.start is None else f"{found.start.median_s * MS:.0f}"


def _first(record: Record) -> SplitResult:
    return next(iter(record.splits.values()))


def _published(quant: str | None, metric: str) -> Decimal | None:
    """The study's figure on a CPU; None if it has none."""
    for item in load().figures:
        if item.source == "andreyev2025" and item.quant == quant and item.device in (None, "cpu"):
            figure = item.wer.get("excerpts") if metric == "wer" else item.other.get(metric)
            if figure is not None:
                return figure
    return None


def _beside(ours: str, theirs: Decimal | None) -> str:
    return ours if theirs is None else f"{ours} ({theirs})"


def _head(names: Sequence[str]) -> list[str]:
    return [_line(names), f"|---|{'---:|' * (len(names) - 1)}"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
