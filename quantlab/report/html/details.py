"""Details of one cell on the page besides its texts: timing, quantization receipt, configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quantlab.records import storage
from quantlab.records.schema import Batch, Receipt
from quantlab.report.bits import by_layer
from quantlab.report.cell_summary import CellSummary

_BINS = 24
_STAGES = (  # in execution order
    ("load_s", "load"),
    ("quantize_s", "quantize"),
    ("calibrate_s", "calibrate"),
    ("recover_s", "recover"),
    ("features_s", "audio features"),
    ("first_inference_s", "first batch"),
    ("warmup_s", "warm-up"),
    ("measure_s", "timed batches"),
    ("total_s", "the whole cell"),
)


def cell_details(row: CellSummary) -> dict[str, Any]:
    """A record without its environment and texts, as JSON."""
    record = row.record
    return {
        "created": record.created_at,
        "traceback": record.traceback,
        "stages": [[name, value] for key, name in _STAGES if (value := getattr(record.stages, key)) is not None],
        "cold": record.cold_start_s,
        "memory": record.peak_memory_bytes,
        "energy": None if record.energy_j is None else [record.energy_j, record.energy_source],
        "fixed": None if record.fixed_work is None else record.fixed_work.model_dump(mode="json"),
        "noise": None if record.noise is None else record.noise.model_dump(mode="json"),
        "latency": _latencies(row.root, record.cell_id),
        "receipt": None if record.receipt is None else _receipt(record.receipt),
        "problems": [
            [item.split, item.utterance, item.kind, item.detail, "yes" if item.measured else "no"]
            for item in record.problems
        ],
        "calibration": len(record.calibration_ids),
        "recovered": None if record.recovered is None else record.recovered.model_dump(mode="json"),
        "config": record.config,
        "fingerprints": record.fingerprints,
        "original": record.original and f"{record.original.name} (SHA-256 {record.original.sha256[:12]})",
    }


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {
        "total": receipt.modules_total,
        "quantized": receipt.modules_quantized,
        "verified": receipt.verified,
        "problems": receipt.problems,
        "bytes": receipt.bytes_by_dtype,
        "bits": _bits(receipt),
        "modules": [
            [
                module.name,
                module.class_before,
                module.class_after,
                module.bytes_before,
                module.bytes_after,
                module.kernel,
                module.skipped or ("" if module.quantized else "no reason recorded"),
                ", ".join(f"{name} {dtype}" for name, dtype in module.dtypes.items()),
            ]
            for module in receipt.modules
        ],
    }


def _bits(receipt: Receipt) -> dict[str, Any] | None:
    """Bits by layer, if they differ by module."""
    found = {module.name: module.bits for module in receipt.modules}
    return vars(by_layer(found)) if len(set(found.values()) - {None}) > 1 else None


def _latencies(root: Path, cell_id: str) -> dict[str, Any] | None:
    """Histogram of the batch latencies, and of those of the baseline that was timed in turns with the cell."""
    try:
        batches = [batch for batch in storage.read_batches(root, cell_id) if batch.work == "natural"]
        edges = np.histogram_bin_edges([batch.elapsed_s for batch in batches], bins=_BINS)
    except (OSError, ValueError):  # ValueError also for times whose difference is below float precision
        return None
    if not batches:
        return None
    return {
        "edges": [float(f"{edge:.5g}") for edge in edges],
        "cell": _counts(batches, "cell", edges),
        "baseline": _counts(batches, "baseline", edges),
    }


def _counts(batches: Sequence[Batch], of: str, edges: np.ndarray) -> list[int]:
    found = [batch.elapsed_s for batch in batches if batch.of == of]
    return [int(count) for count in np.histogram(found, edges)[0]] if found else []
