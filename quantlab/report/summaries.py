"""Typed summaries of the cells of one or several roots, each compared with its baseline or another reference."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.analysis.evidence import Evidence, evidence
from quantlab.analysis.pairs import find_baselines
from quantlab.analysis.references import find_references
from quantlab.records import labels
from quantlab.records.schema import Record
from quantlab.records.several import Roots, Stored, paths, stored
from quantlab.records.storage import recorded
from quantlab.records.word_times import WordTimes
from quantlab.report import costs, reproduced
from quantlab.report.cell_summary import CellSummary
from quantlab.report.word_times import against_baselines
from quantlab.stats.estimate import Estimate
from quantlab.util.console import warn

if TYPE_CHECKING:
    import pandas


class Summaries(tuple[CellSummary, ...]):
    """Cell summaries in reading order; convertible to a data frame or JSON."""

    def to_dataframe(self) -> pandas.DataFrame:
        """Data frame with one row per cell, in fractions, seconds and bytes; missing figures are empty.

        Columns are named as in the CSV report: `label` (unique here), `cell_id`, `status`, `model` and `corpus` (unique
        names), `quant`, `library`, `bits`, `device`, `dtype`, `runtime`, `protocol`, `error_unit`, `verdict`,
        `against` (see `summaries`; None: the baseline), `size_bytes`, `size_reduction`, `bits_per_weight`,
        `bytes_per_token`, `bit_ops_per_s`, `peak_memory_bytes`; over all splits `wer`, `cer`, `rtf`, `wer_difference`
        (to the baseline, or to the cell that `against` asks for) and `ratio` (time / time of the baseline); of each
        split `splits.NAME.wer`, `splits.NAME.cer`, `splits.NAME.wer_difference`. The 95 % interval of each is in
        columns such as `wer_ci95.low`, `wer_ci95.high`.
        """
        import pandas

        cells = [cell.named for cell in self]
        named, models, corpora = labels.names(cells), labels.checkpoints(cells), labels.corpora(cells)
        return pandas.DataFrame(
            [
                {"label": named[cell.cell_id], "model": models[cell.cell_id], "corpus": corpora[cell.cell_id]}
                | _flat(cell)
                for cell in self
            ]
        )

    def to_json(self) -> str:
        """One JSON list in ASCII, for terminals of any encoding; raises ValueError for NaN."""
        return json.dumps([cell.to_dict() for cell in self], indent=1, allow_nan=False)


def summaries(
    roots: Roots,
    ids: Sequence[str] | None = None,
    margin: float | None = None,
    on_unreadable: Callable[[str], None] = warn,
    against: str | None = None,
) -> Summaries:
    """Summarise every cell recorded below the roots, each compared with its baseline or another reference.

    An unreadable record is left out; so is the evidence of a cell with unreadable raw files. Holm's
    correction covers the returned cells.

    Args:
        roots: one or several output folders of grids; a cell's baseline may be in another root.
        ids: only these cells, in this order; None: all, baseline first within each model, dataset and device.
            A baseline or reference that is not among them is still searched for below the roots.
        margin: percentage points of WER that do not matter; None: `stats.margin` of each record.
        on_unreadable: called with a message for each unreadable file and each cell that could not be fully paired.
        against: compare WER and CER with cells of this library (`hqq`: of equal bits, groups and modules) or quantizer
            (`hqq_int3`); None: with the baseline. Times and sizes are relative to the baseline in any case.

    Raises:
        ConfigError: two roots hold different records of one cell, one of several holds none, or no measured cell is of
            the library or quantizer `against`.
    """
    found = compared(roots, stored(roots, ids, on_unreadable), margin, on_unreadable, against)
    return Summaries(sorted(found, key=_order)) if ids is None else found


def of_records(root: str | Path, records: Sequence[Record], on_unreadable: Callable[[str], None] = warn) -> Summaries:
    """As `summaries`, for records of one root that are already read, in their order."""
    return compared(root, [Stored(Path(root), record) for record in records], None, on_unreadable)


def compared(
    roots: Roots,
    found: Sequence[Stored],
    margin: float | None = None,
    on_unreadable: Callable[[str], None] = warn,
    against: str | None = None,
) -> Summaries:
    """As `summaries`, for records that are already read, in their order."""
    others = _elsewhere(roots, found) if against is not None or _lacks_baselines(found) else []
    records = [item.record for item in (*found, *others)]
    here = [item.record.cell_id for item in found]
    references = None
    if against is not None and here:
        every = find_references(records, against)
        references = {cell_id: every[cell_id] for cell_id in here}
    baselines = find_baselines(records)
    wanted = {baselines.get(cell_id) for cell_id in here}
    wanted |= {reference.cell_id for reference in (references or {}).values()}
    needed = [item for item in others if item.record.cell_id in wanted]
    known = evidence([*found, *needed], margin, on_unreadable, references)
    times = against_baselines(found, needed, baselines, on_unreadable)
    return Summaries(summary(record, known[record.cell_id], root, times.get(record.cell_id)) for root, record in found)


def summary(
    record: Record,
    known: Evidence | None = None,
    root: Path = Path("mlruns"),
    times: Mapping[str, WordTimes] | None = None,
) -> CellSummary:
    """Summary of a record with its evidence, its word times against the baseline, and matching published figures."""
    plain = CellSummary(record, known or Evidence(), root, word_times=times or {})
    return replace(plain, published=reproduced.compared(plain))


def _lacks_baselines(found: Sequence[Stored]) -> bool:
    records = [item.record for item in found]
    return not {record.cell_id for record in records} <= set(find_baselines(records))


def _elsewhere(roots: Roots, found: Sequence[Stored]) -> list[Stored]:
    """Records below the roots that are missing from `found`; read only if needed, as reading all records is slow."""
    here = {item.record.cell_id for item in found}
    ids = [cell_id for root in paths(roots) for cell_id in recorded(root) if cell_id not in here]
    return stored(roots, list(dict.fromkeys(ids)), lambda message: None) if ids else []


def _order(cell: CellSummary) -> tuple[Any, ...]:
    asked = cell.settings
    axes = (cell.dataset, cell.model, asked.weights, asked.device, asked.runtime, asked.dtype, asked.protocol)
    return (
        *map(str, axes),
        cell.corpus.name,
        *(part.fingerprint or "~" for part in (cell.corpus, cell.checkpoint)),  # cells that failed early come last
        asked.quant != "none",
        str(asked.library),
        -(asked.bits or 0),
        str(asked.quant),
        cell.cell_id,
    )


def _flat(cell: CellSummary) -> dict[str, Any]:
    asked, record = cell.settings, cell.record
    found = {"wer": cell.wer, "cer": cell.cer, "wer_difference": cell.difference()}
    for name, split in cell.splits.items():
        change = split.evidence.wer_difference
        of_split = {"wer": split.rate("wer"), "cer": split.rate("cer"), "wer_difference": change}
        found |= {f"splits.{name}.{figure}": estimate for figure, estimate in of_split.items()}
    found |= {"rtf": cell.rtf, "ratio": cell.ratio}
    return {
        "cell_id": cell.cell_id,
        "status": cell.status,
        "quant": asked.quant,
        "library": asked.library,
        "bits": asked.bits,
        "device": asked.device,
        "dtype": asked.dtype,
        "runtime": asked.runtime,
        "protocol": asked.protocol,
        "error_unit": record.error_unit,
        "verdict": cell.verdict,
        "against": cell.against and cell.against.name,
        "size_bytes": cell.size_bytes,
        "size_reduction": record.size_reduction,
        "bits_per_weight": costs.bits_per_weight(record),
        "bytes_per_token": costs.bytes_per_token(record),
        "bit_ops_per_s": costs.bit_ops_per_s(record),
        "peak_memory_bytes": record.peak_memory_bytes,
        **{column: value for name, estimate in found.items() for column, value in _columns(name, estimate)},
    }


def _columns(name: str, found: Estimate | None) -> list[tuple[str, float | None]]:
    low, high = (found and found.ci95) or (None, None)
    return [(name, found and found.value), (f"{name}_ci95.low", low), (f"{name}_ci95.high", high)]
