"""Record schema: the complete result of one cell; its samples and figures are in `measured`.

Rates are always stored with their counts, so that every figure can be recomputed.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from quantlab.config.schema import RunConfig, StatsConfig
from quantlab.records.bundled import Bundled
from quantlab.records.looks import Adaptive, Look
from quantlab.records.measured import (
    Batch,
    Compilation,
    EngineStages,
    FixedWork,
    Noise,
    Speed,
    SplitResult,
    Stages,
    Utterance,
    Work,
    added,
)
from quantlab.records.part import Count, Figure, Part, Text
from quantlab.records.shape import check, check_plain, shape_of
from quantlab.records.streams import Stream, StreamFigures
from quantlab.util.errors import shortened
from quantlab.util.languages import ErrorUnit

__all__ = [
    "SCHEMA_VERSION",
    "Adaptive",
    "Batch",
    "Bundled",
    "CellResult",
    "Compilation",
    "EngineStages",
    "Exported",
    "FixedWork",
    "Look",
    "ModuleReceipt",
    "Noise",
    "OriginalFile",
    "Problem",
    "Receipt",
    "Record",
    "Recovered",
    "Speed",
    "SplitResult",
    "Stages",
    "Status",
    "Stream",
    "StreamFigures",
    "Utterance",
    "Work",
    "added",
    "check_config_types",
    "to_json",
]

SCHEMA_VERSION = 1
Status = Literal["ok", "failed", "unsupported", "oom", "timeout"]


class ModuleReceipt(Part):
    """One quantizable module (a Linear), before and after quantization."""

    name: str
    class_before: str
    class_after: str
    dtypes: dict[str, str]  # stored tensor → dtype, after quantization
    bytes_before: Count
    bytes_after: Count
    kernel: str | None = None  # matrix multiplication kernel, if the library tells
    quantized: bool
    bits: Annotated[float, Field(gt=0, le=32)] | None = None  # of a code, if the module tells
    skipped: str | None = None  # why it was deliberately not quantized: outside the target, skip=…, head=false


class Receipt(Part):
    """Evidence that quantization happened, read from the model and not from the config."""

    modules: tuple[ModuleReceipt, ...]
    modules_total: Count
    modules_quantized: Count
    bytes_by_dtype: dict[str, Count]
    size_bytes: Count  # unique tensors of the whole model, tied ones counted once
    baseline_bytes: Annotated[Count, Field(gt=0)]  # the same model in fp32 before quantization
    params: Count  # of the model before quantization, tied ones counted once
    verified: bool
    problems: tuple[str, ...] = ()  # why not verified: modules that should have changed and did not

    @model_validator(mode="after")
    def _adds_up(self) -> Receipt:
        if self.size_bytes != (total := sum(self.bytes_by_dtype.values())):
            raise ValueError(f"size_bytes={self.size_bytes:,}, but bytes_by_dtype adds up to {total:,}")
        return self


class Problem(Part):
    """A problem of an utterance that readers of the figures should know."""

    utterance: str
    split: str
    kind: Literal[
        "unreadable",
        "empty reference",
        "too long",
        "over full scale",
        "silence",
        "channels cancel out",
        "channels differ",
        "cut off",  # by the token limit
        "few words",  # far fewer than usual for a recording of its length
    ]
    detail: str
    measured: bool = False  # whether it is included in the figures nevertheless


class Recovered(Part):
    """Training of a model after quantization; losses are means over held-out utterances, in nats per token."""

    steps: Count
    best_step: Count  # whose parameters were kept
    loss_before: Figure  # KL divergence from the original's token distribution
    loss_after: Figure
    utterances: Count  # trained on
    held_out: Count
    parameters: Count  # numbers that were trained


_CONFIG = shape_of(RunConfig)


def check_config_types(config: dict[str, Any]) -> None:
    """Check the types of a record's settings, which readers sort, group and print by.

    Raises:
        ValueError: a type is wrong; the message names the key.
    """
    check_plain(config, "config.")
    check(config, _CONFIG)
    stats, noise = config.get("stats") or {}, config.get("dataset", {}).get("noise") or {}
    if (noise.get("kind") is None) != (noise.get("snr_db") is None):
        raise ValueError(f"dataset.noise: kind={noise.get('kind')!r} and snr_db={noise.get('snr_db')} go together")
    try:
        StatsConfig(**{key: value for key, value in stats.items() if key in StatsConfig.model_fields})
    except ValidationError as error:  # a million resamples take a minute, a billion all memory
        first = error.errors()[0]
        raise ValueError(f"stats.{first['loc'][0]}: {first['msg']}") from None


class OriginalFile(Part):
    """The file of another program from which the checkpoint was converted."""

    name: str
    format: str  # ctranslate2, ggml, openai
    sha256: str
    quantized_as: str | None = None  # formats of the quantized tensors


class Record(Part):
    """Result of one cell without raw texts and timings; `_s` means seconds, `_bytes` bytes, rates are fractions."""

    schema_version: int = SCHEMA_VERSION
    cell_id: str
    status: Status
    reason: str | None = None  # one line, for every status but ok
    traceback: str | None = None
    created_at: str  # UTC, ISO 8601
    config: dict[str, Any]  # resolved RunConfig
    fingerprints: dict[str, str] = Field(default_factory=dict)  # checkpoint, corpus
    original: OriginalFile | None = None  # set if the checkpoint is not a folder of transformers
    environment: dict[str, Any] = Field(default_factory=dict)  # versions, processor, threads, commit
    receipt: Receipt | None = None
    stages: Stages = Stages()
    engine_stages: EngineStages | None = None  # for engines that report their own times
    peak_memory_bytes: Count | None = None  # on CUDA allocated by torch: null for engines with their own allocator
    peak_reserved_bytes: Count | None = None  # CUDA only
    gpu_process_bytes: Count | None = None  # CUDA only: memory of the process according to NVML, by any allocator
    speed: Speed | None = None  # free-running time relative to the baseline, if the protocol interleaves
    fixed_work: FixedWork | None = None
    compilation: Compilation | None = None  # runtime=compile only
    noise: Noise | None = None
    recovered: Recovered | None = None  # quant.recover only
    adaptive: Adaptive | None = None  # protocol.looks only, unless there was no baseline to compare with
    bundle: Bundled | None = None  # if it was measured by a bundle
    energy_j: Figure | None = None  # of the timed region, if it can be read
    energy_source: str | None = None  # NVML or RAPL
    normaliser: str = "whisper"  # normaliser of the texts before counting
    error_unit: ErrorUnit = "word"  # unit of `wer` and its counts
    scorer: str = "jiwer"  # package that aligned the texts
    keywords: tuple[Text, ...] | None = None  # words and phrases whose recall was counted (dataset.keywords)
    digests: dict[str, str] = Field(default_factory=dict)  # raw file → SHA-256, set by `write`
    calibration_ids: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    splits: dict[str, SplitResult] = Field(default_factory=dict)
    streaming: StreamFigures | None = None  # over all splits; runtime.streaming only

    @field_validator("config")
    @classmethod
    def _has_config_types(cls, config: dict[str, Any]) -> dict[str, Any]:
        check_config_types(config)
        return config

    @field_validator("environment")
    @classmethod
    def _names_versions(cls, environment: dict[str, Any]) -> dict[str, Any]:
        check_plain(environment, "environment.")
        versions = environment.get("versions") or {}
        if not isinstance(versions, dict) or not all(isinstance(item, str | None) for item in versions.values()):
            raise ValueError("versions: expected text for each library")
        return environment

    @field_validator("created_at")
    @classmethod
    def _is_utc(cls, created_at: str) -> str:
        """Require UTC, since the later of two records is found by comparing the strings."""
        try:
            moment = datetime.fromisoformat(created_at)
        except ValueError:
            raise ValueError(f"{shortened(created_at)} is not a time in ISO 8601") from None
        if moment.utcoffset() != timedelta(0) or not 1970 <= moment.year < 9999 or created_at[10:11] != "T":
            raise ValueError(f"{shortened(created_at)}: expected a time in UTC, as 2026-01-31T12:00:00+00:00")
        return created_at

    @model_validator(mode="after")
    def _has_figures_if_ok(self) -> Record:
        if self.status == "ok" and (self.receipt is None or not self.splits):
            raise ValueError("status=ok, but it has no receipt or no figures")
        return self

    @property
    def cold_start_s(self) -> float | None:
        """Time to load, quantize, calibrate, compile and first inference, without imports. None if one is missing."""
        stages = self.stages
        parts = (stages.load_s, stages.quantize_s, stages.first_inference_s)
        if any(part is None for part in parts):
            return None
        added = (stages.calibrate_s, stages.compile_s, stages.recover_s)
        return sum(part for part in (*parts, *added) if part is not None)

    @property
    def stopped_early(self) -> bool:
        """Whether part of the corpus was left out, as the verdict was known before."""
        return self.adaptive is not None and self.adaptive.stopped_early

    @property
    def size_reduction(self) -> float | None:
        """1 − size / fp32 size; None if nothing was loaded."""
        return None if self.receipt is None else 1 - self.receipt.size_bytes / self.receipt.baseline_bytes

    def setting(self, key: str) -> Any:
        """The value at a dotted key of the resolved configuration (`quant.bits`); None if missing."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


class Exported(Part):
    """Outcome of a model's export; not part of the record, as a location is not a result."""

    folder: str
    problem: str | None = None  # one line: why the measured cell was not exported


class CellResult(BaseModel):
    """A record with its raw samples, as returned by `run_cell` and stored by `write`."""

    model_config = ConfigDict(frozen=True)
    record: Record
    utterances: tuple[Utterance, ...] = ()
    batches: tuple[Batch, ...] = ()
    streams: tuple[Stream, ...] = ()  # runtime.streaming only
    exported: Exported | None = None  # None if no export was requested


def to_json(value: object) -> str:
    """Canonical JSON for hashing: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
