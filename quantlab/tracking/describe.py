"""Parameters, metrics, tags and dataset of a record for MLflow. Pure functions, without MLflow."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from quantlab.config.overrides import GROUPS, overrides
from quantlab.config.quant import CALIBRATED
from quantlab.config.schema import AS_SHIPPED
from quantlab.records import labels
from quantlab.records.schema import Record
from quantlab.util.printable import printable

# Parameter → key of the resolved configuration: the grid's axes by the name of their group, then other keys that
# distinguish cells.
_AXES = ("model", "quant", "device", "runtime", "protocol")
_OF_QUANT = (
    *("library", "bits", "format", "scheme", "activations", "granularity", "group_size", "symmetric", "double_quant"),
    *("recover", "target", "skip", "head"),
)
PARAMS = (
    {axis: f"{axis}.name" for axis in _AXES}
    | {name: f"quant.{name}" for name in _OF_QUANT}
    | {name: f"runtime.{name}" for name in ("audio_ctx", "dtype")}
    | {"streaming": "runtime.streaming.policy"}
    | {name: f"protocol.{name}" for name in ("batch_size", "num_beams")}
    | {"snr_db": "dataset.noise.snr_db", "long": "dataset.long", "dataset_limit": "dataset.limit"}
    | {"weights": "model.weights", "threads": "device.threads", "seed": "seed"}
    | {"calibration_source": "calibration.source"}
)
_QUALITY = ("wer", "cer", "empty_share", "loop_share", "nonspeech_words_per_min")
_SPEED = ("rtf", "tokens_per_s", "latency_p50_s", "latency_p90_s", "latency_p99_s")
_STREAMING = ("wer", "wer_increase", "first_text_p50_s", "final_p50_s", "lag_p50_s", "taken_back_share", "rtf")
STAGES = ("load_s", "quantize_s", "calibrate_s", "recover_s", "warmup_s", "measure_s", "total_s")
_IN_LABEL = ("runtime.dtype", "dataset.noise.kind", "dataset.noise.snr_db")
_NOT_IN_A_NAME = re.compile(r"[^\w.\- /:]", re.ASCII)  # not allowed by MLflow in the name of a metric or tag
_LONGEST_NAME = 250  # characters; MLflow's own limit
_LONGEST_TAG = 500  # characters; enough for a reason, and a column of the run list stays readable


def name(record: Record) -> str:
    """Name of the run, independent of other runs: the cell, and its non-default settings."""
    cell = labels.of_record(record)
    usual = ("device.threads", "tracking.", "stats.", "timeout_s", "isolate", "model.path", "baseline.", "dataset.path",
             "dataset.keywords")  # fmt: skip
    found = overrides(record.config)
    further = {key: value for key, value in found.items() if key not in GROUPS and not key.startswith(usual)}
    told = [] if cell.corpus == "demo" else [cell.corpus]
    told += [f"{part} {labels.short(record.fingerprints.get(part, 'unknown'))}" for part, path in
             (("checkpoint", "model.path"), ("corpus", "dataset.path")) if cell.setting(path)]  # fmt: skip
    told += [str(cell.setting("quant.format"))] if cell.setting("quant.library") == AS_SHIPPED else []
    told += [f"{key}={_text(value)}" for key, value in further.items() if not key.startswith(_IN_LABEL)]
    return printable(f"{cell.label} ({', '.join(told)})" if told else cell.label)[:_LONGEST_NAME]


def params(record: Record) -> dict[str, str]:
    """Parameters of the run; a key without a value is left out."""
    values = {name: record.setting(key) for name, key in PARAMS.items()} | {"dataset": labels.of_record(record).dataset}
    library = record.setting("quant.method") or record.setting("quant.library")
    calibrated = library in CALIBRATED or record.setting("quant.recover") is not None
    if record.setting("quant.scheme") != "static" and not calibrated:
        del values["calibration_source"]
    return {name: _text(value) for name, value in values.items() if value not in (None, (), [])}


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return printable(str(value))


def metrics(record: Record) -> dict[str, float]:
    """Figures that exist, in groups (the part before `/` is a section of MLflow's chart view).

    WER, CER, shares and reductions are fractions; `_s` seconds, `_bytes` bytes. A figure that is null in the
    record is absent. Figures are rounded; the record, an artifact of the run, has all digits.
    """
    found: dict[str, float | None] = {}
    for split, result in record.splits.items():
        found |= {f"quality/{name}_{split}": getattr(result, name) for name in _QUALITY}
        found |= {f"speed/{name}_{split}": getattr(result, name) for name in _SPEED}
        if result.streaming is not None:
            found |= {f"streaming/{name}_{split}": getattr(result.streaming, name) for name in _STREAMING}
    if record.receipt is not None:
        found |= {"size/bytes": record.receipt.size_bytes, "size/reduction": record.size_reduction}
        found["size/modules_quantized"] = record.receipt.modules_quantized
    found |= {"memory/peak_bytes": record.peak_memory_bytes, "memory/peak_reserved_bytes": record.peak_reserved_bytes}
    found["memory/gpu_process_bytes"] = record.gpu_process_bytes
    if record.speed is not None:
        found["speed/ratio"] = record.speed.ratio  # time of the cell / time of the baseline
    if record.fixed_work is not None:
        found |= {"speed/encoder_s": record.fixed_work.encoder_s, "speed/token_s": record.fixed_work.token_s}
    found |= {f"time/{stage}": getattr(record.stages, stage) for stage in STAGES}
    found |= {"time/cold_start_s": record.cold_start_s, "energy/joules": record.energy_j}
    return {plain_name(name): _readable(v) for name, v in found.items() if v is not None and math.isfinite(v)}


def _readable(value: float) -> float:
    """Rounded to seven significant digits, since MLflow prints all digits; whole numbers, such as bytes, stay exact."""
    return float(value) if float(value).is_integer() else float(f"{value:.7g}")


def headline(cells: Sequence[Record]) -> dict[str, float]:
    """Summary of a sweep: number of cells by status, and the best figure of each kind."""
    counts = Counter(cell.status for cell in cells)
    good = [cell for cell in cells if cell.status == "ok"]
    corpora = {labels.of_record(cell).corpus_key for cell in good}
    figures = [metrics(cell) for cell in good]
    best = {
        f"summary/best_{name.rpartition('/')[2]}": min(found[name] for found in figures if name in found)
        for name in sorted({name for found in figures for name in found})
        if name.startswith("size/bytes")  # lower is better; sizes can be compared across corpora
        or (len(corpora) == 1 and name.startswith(("quality/wer_", "speed/rtf_")))
    }
    return {"summary/cells": float(len(cells))} | {f"summary/cells_{k}": float(v) for k, v in counts.items()} | best


def plain_name(name: str) -> str:
    """The name, with characters that MLflow does not allow replaced by `_`, and without `.` and `..` as path parts."""
    parts = _NOT_IN_A_NAME.sub("_", name)[:_LONGEST_NAME].split("/")
    return "/".join(part.strip(".") or "_" for part in parts)


def tags(record: Record) -> dict[str, str]:
    """Tags by which the run list can be filtered."""
    found: dict[str, Any] = {
        "status": record.status,
        "reason": record.reason,
        "speed": None if record.speed is None else record.speed.verdict,
        "noise": None if record.noise is None else "; ".join(record.noise.flags),
        "verified": None if record.receipt is None else str(record.receipt.verified).lower(),
        "error_unit": record.error_unit,
        "normaliser": record.normaliser,
        "scorer": record.scorer,
        "processor": record.environment.get("processor"),
        "checkpoint": record.fingerprints.get("checkpoint"),
        "quantlab.created_at": record.created_at,
        "mlflow.source.name": "quantlab",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": record.environment.get("commit"),
    }
    versions = record.environment.get("versions")
    if isinstance(versions, Mapping):
        found |= {f"version.{name}": version for name, version in versions.items()}
    return {plain_name(k): printable(str(v))[:_LONGEST_TAG] for k, v in found.items() if v not in (None, "")}


def corpus(record: Record) -> dict[str, str] | None:
    """Fields of an `mlflow.entities.Dataset`, or None if the corpus was never opened."""
    digest = record.fingerprints.get("corpus")
    if digest is None:
        return None
    place = {key: record.setting(f"dataset.{key}") for key in ("source", "repo", "revision", "path", "limit")}
    sizes = {name: {"utterances": s.utterances, "audio_s": round(s.audio_s, 3)} for name, s in record.splits.items()}
    return {
        "name": printable(str(record.setting("dataset.name"))),
        "digest": digest[:36],  # the longest that MLflow stores
        "source_type": "huggingface" if record.setting("dataset.source") == "hub" else "local",
        "source": json.dumps({key: value for key, value in place.items() if value is not None}),
        "profile": json.dumps(sizes),
    }


def milliseconds(created_at: str) -> int:
    """ISO 8601 → milliseconds since 1970."""
    return round(datetime.fromisoformat(created_at).timestamp() * 1000)
