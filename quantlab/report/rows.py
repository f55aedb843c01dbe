"""Records as plain rows: one flat object per cell, the JSON of docs and of every other format's making."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantlab.analysis.evidence import Evidence, SplitEvidence, evidence
from quantlab.analysis.pairs import find_baselines
from quantlab.config.schema import AS_SHIPPED
from quantlab.quantization.base import FLOATS
from quantlab.quantization.select import HEAD
from quantlab.records import storage
from quantlab.records.labels import Cell, of_record
from quantlab.records.schema import Problem, Receipt, Record, SplitResult
from quantlab.report import reproduced
from quantlab.util.console import warn

Row = dict[str, Any]

# Key of the row → key of the resolved configuration.
_SETTINGS = {
    "weights": "model.weights",
    "quant": "quant.name",
    "library": "quant.library",
    "bits": "quant.bits",
    "format": "quant.format",
    "scheme": "quant.scheme",
    "activations": "quant.activations",
    "granularity": "quant.granularity",
    "group_size": "quant.group_size",
    "symmetric": "quant.symmetric",
    "double_quant": "quant.double_quant",
    "axis": "quant.axis",
    "backend": "quant.backend",
    "target": "quant.target",
    "skip": "quant.skip",
    "head": "quant.head",
    "embedding": "quant.embedding",
    "device": "device.name",
    "threads": "device.threads",
    "runtime": "runtime.name",
    "audio_ctx": "runtime.audio_ctx",
    "dtype": "runtime.dtype",
    "noise_kind": "dataset.noise.kind",
    "snr_db": "dataset.noise.snr_db",
    "long": "dataset.long",
    "language": "dataset.language",
    "protocol": "protocol.name",
    "batch_size": "protocol.batch_size",
    "seed": "seed",
}


def rows(
    root: str | Path,
    ids: Sequence[str] | None = None,
    margin: float | None = None,
    on_unreadable: Callable[[str], None] = warn,
) -> list[Row]:
    """One row per record below `root`, each compared with its baseline.

    A figure that does not exist is None, never 0. A record that cannot be read is left out; so is the evidence of
    one whose raw files cannot be read. Holm's correction is over the cells returned.

    Args:
        root: the grid's output_dir.
        ids: only these cells, in this order; None is all, baseline first within each model, dataset and device.
            A baseline that is not among them is still looked for below `root`.
        margin: percentage points of WER that do not matter; None is each record's own `stats.margin`.
        on_unreadable: told about every file that could not be read, and cells that could not be paired in full.
    """
    found = storage.readable(root, storage.recorded(root) if ids is None else ids, on_unreadable)
    compared = rows_of(root, found, margin, on_unreadable)
    return sorted(compared, key=_order) if ids is None else compared


def rows_of(
    root: str | Path,
    found: Sequence[Record],
    margin: float | None = None,
    on_unreadable: Callable[[str], None] = warn,
) -> list[Row]:
    """As `rows`, of records that were read already, in their order."""
    known = evidence(root, [*found, *_baselines_elsewhere(root, found)], margin, on_unreadable)
    return [row(item, known[item.cell_id]) for item in found]


def _baselines_elsewhere(root: str | Path, found: Sequence[Record]) -> list[Record]:
    """Recorded baselines of cells whose own is not among `found`; reading every record takes its time."""
    known = find_baselines(found)
    if all(item.cell_id in known for item in found):
        return []
    here = {item.cell_id for item in found}
    elsewhere = [cell_id for cell_id in storage.recorded(root) if cell_id not in here]
    others = storage.readable(root, elsewhere, lambda message: None)
    baselines = find_baselines([*found, *others])
    wanted = {baselines.get(item.cell_id) for item in found}
    return [item for item in others if item.cell_id in wanted]


def _order(row: Row) -> tuple[Any, ...]:
    axes = ("dataset", "model", "weights", "device", "runtime", "dtype", "protocol")
    return (
        *(str(row[key]) for key in axes),
        row["corpus"]["name"],
        *(row[key]["fingerprint"] or "~" for key in ("corpus", "checkpoint")),  # what failed early comes last
        row["quant"] != "none",
        str(row["library"]),
        -(row["bits"] or 0),
        str(row["quant"]),
        row["cell_id"],
    )


def row(record: Record, compared: Evidence | None = None) -> Row:
    """The record's figures; WER, CER, shares and reductions are fractions, `_s` seconds, `_bytes` bytes.

    Args:
        record: the cell.
        compared: see `quantlab.analysis.evidence`; without it what rests on a comparison or a resample is None.
    """
    compared = compared or Evidence()
    receipt, cell = record.receipt, of_record(record)
    found: Row = {
        "cell_id": record.cell_id,
        "status": record.status,
        "reason": record.reason,
        **{name: record.setting(key) for name, key in _SETTINGS.items()},
        "model": cell.model,
        "checkpoint": {
            "name": cell.model,
            "fingerprint": record.fingerprints.get("checkpoint"),
            "original": None if record.original is None else record.original.model_dump(),
        },
        "dataset": cell.dataset,
        "corpus": {"name": cell.corpus, "fingerprint": record.fingerprints.get("corpus")},
        "size_bytes": None if receipt is None else receipt.size_bytes,
        "size_reduction": record.size_reduction,
        "embedding_bytes": None if receipt is None else _embedding_left(receipt),
        "params": None if receipt is None else receipt.params,
        "splits": {name: _split(result, compared.splits.get(name)) for name, result in record.splits.items()},
        "wer": _pooled(record, ("substitutions", "deletions", "insertions"), "ref_words"),
        "wer_ci95": _listed(compared.wer_ci95),
        "cer": _pooled(record, ("char_errors",), "ref_chars"),
        "cer_ci95": _listed(compared.cer_ci95),
        "baseline": compared.baseline,
        "verdict": compared.verdict,
        "no_baseline": _why_no_baseline(record),
        "comparison": compared.comparison and _with_lists(vars(compared.comparison)),
        "normaliser": record.normaliser,
        "error_unit": record.error_unit,
        "scorer": record.scorer,
        "nonspeech_words_per_min": _nonspeech(record),
        **record.stages.model_dump(),
        "cold_start_s": record.cold_start_s,
        "engine_stages": None if record.engine_stages is None else record.engine_stages.model_dump(mode="json"),
        "speed": None if record.speed is None else record.speed.model_dump(mode="json"),
        "fixed_work": None if record.fixed_work is None else record.fixed_work.model_dump(mode="json"),
        "compilation": None if record.compilation is None else record.compilation.model_dump(mode="json"),
        "noise": None if record.noise is None else record.noise.model_dump(mode="json"),
        "energy_j": record.energy_j,
        "energy_source": record.energy_source,
        "peak_memory_bytes": record.peak_memory_bytes,
        "peak_reserved_bytes": record.peak_reserved_bytes,
        "gpu_process_bytes": record.gpu_process_bytes,
        "receipt": None if receipt is None else _receipt(receipt),
        "environment": record.environment,
        "fingerprints": record.fingerprints,
        "problems": [_problem(item) for item in record.problems],
        "created_at": record.created_at,
        "config": record.config,
    }
    return found | {"published": reproduced.compared(found)}


def _why_no_baseline(record: Record) -> str | None:
    """Why there can be no verdict; None where nothing stands in its way but a record that is not there."""
    if record.setting("quant.library") != AS_SHIPPED or "baseline" in record.fingerprints:
        return None
    return "nobody said what the file was made of, so it has no verdict: baseline.path=FOLDER of its fp32 model"


def _embedding_left(receipt: Receipt) -> int | None:
    """Bytes of the token embedding that a quantized model still holds as floating-point numbers; None where it is not.

    It is as large as the output projection was, whose matrix it is.
    """
    modules = {item.name: item for item in receipt.modules}
    if not receipt.modules_quantized or HEAD not in modules or any("embed_tokens" in name for name in modules):
        return None
    size = modules[HEAD].bytes_before
    floats = sum(count for dtype, count in receipt.bytes_by_dtype.items() if dtype in FLOATS)
    return size if floats >= size else None


def cell(row: Row) -> Cell:
    """The same of a row."""
    versions = row["environment"].get("versions") or {}
    scoring = row["normaliser"], versions, row["error_unit"], row["scorer"]
    return Cell(row["cell_id"], row["config"], row["fingerprints"], *scoring)


def _split(result: SplitResult, compared: SplitEvidence | None) -> Row:
    return result.model_dump(mode="json") | _with_lists(vars(compared or SplitEvidence()))


def _pooled(record: Record, errors: Sequence[str], length: str) -> float | None:
    """All errors of all splits / all reference words or characters; None where a split has no counts."""
    splits = record.splits.values()
    if not splits or any(getattr(split, length) is None for split in splits):
        return None
    total: int = sum(getattr(split, length) for split in splits)
    return sum(getattr(split, name) for split in splits for name in errors) / total if total else None


def _nonspeech(record: Record) -> float | None:
    """Words heard per minute of audio in which nothing is said, over all splits that have some."""
    parts = [split for split in record.splits.values() if split.nonspeech_s]
    audio_s = sum(split.nonspeech_s or 0.0 for split in parts)
    return 60 * sum(split.nonspeech_words or 0 for split in parts) / audio_s if audio_s else None


def _with_lists(part: Mapping[str, Any]) -> Row:
    return {key: _listed(value) for key, value in part.items()}


def _listed(value: Any) -> Any:
    """As JSON will have it, so that rows are the same before and after."""
    return list(value) if isinstance(value, tuple) else value


def _receipt(receipt: Receipt) -> Row:
    return receipt.model_dump(exclude={"modules", "params", "size_bytes"})


def _problem(item: Problem) -> Row:
    what = f"{item.kind}: {item.detail}"
    return {"id": item.utterance, "split": item.split, "kind": item.kind, "what": what, "measured": item.measured}


def to_json(found: list[Row]) -> str:
    """One JSON list, in ASCII whatever the terminal's encoding, and strict: a NaN would raise."""
    return json.dumps(found, indent=1, allow_nan=False)
