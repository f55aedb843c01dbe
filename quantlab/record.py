"""The record: a cell's result, complete in itself.

Rates are never stored without the counts they come from, so that every figure can be computed again.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from quantlab.config import RunConfig, corpus_label
from quantlab.shape import check, shape_of

SCHEMA_VERSION = 1
Status = Literal["ok", "failed", "unsupported", "oom", "timeout"]
Work = Literal["natural", "encoder", "forced"]


class _Part(BaseModel):
    # No NaN: JSON has none, it would be stored as null and the record could not be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class ModuleReceipt(_Part):
    """One module that could have been quantized (a Linear), before and after."""

    name: str
    class_before: str
    class_after: str
    dtypes: dict[str, str]  # stored tensor → dtype, after
    bytes_before: int
    bytes_after: int
    kernel: str | None = None  # what multiplies, as far as the library tells
    quantized: bool
    skipped: str | None = None  # why it was left alone on purpose: outside the target, skip=…, head=false


class Receipt(_Part):
    """What proves that quantization happened, read off the model and never off the config."""

    modules: tuple[ModuleReceipt, ...]
    modules_total: int
    modules_quantized: int
    bytes_by_dtype: dict[str, int]
    size_bytes: int  # unique tensors of the whole model, tied ones once
    baseline_bytes: int  # the same model in fp32 before quantization
    params: int  # of the model before quantization, tied ones once
    verified: bool
    problems: tuple[str, ...] = ()  # why not verified: the modules that should have changed and did not


class Utterance(_Part):
    """One scored utterance: raw text on both sides, and the counts after normalisation."""

    id: str
    split: str
    speaker: str | None
    audio_s: float
    reference: str
    hypothesis: str | None  # null when weights are random
    tokens: int  # generated
    substitutions: int | None = None  # words
    deletions: int | None = None
    insertions: int | None = None
    hits: int | None = None
    char_errors: int | None = None  # S + D + I over characters
    ref_chars: int | None = None
    loop: bool | None = None  # an n-gram repeated until the length limit


class Batch(_Part):
    """One timed call: `generate` as it comes, the encoder alone, or decoding a forced number of tokens."""

    split: str
    index: int  # which batch of the split
    utterances: int
    audio_s: float
    tokens: int  # generated; 0 for the encoder
    elapsed_s: float
    of: Literal["cell", "baseline"] = "cell"
    work: Work = "natural"
    block: int | None = None  # calls of one A B B A block share it; null where nothing was interleaved


class Speed(_Part):
    """Time of the cell / time of its baseline in a typical block of calls that took turns on the same batches."""

    ratio: float
    ci95: tuple[float, float]
    converged: bool  # the interval is as narrow as the protocol asks
    verdict: Literal["faster", "slower", "no difference", "not converged"]
    blocks: int  # of A B B A


class FixedWork(_Part):
    """What the same work costs, as quantization changes how many tokens come out."""

    batch_size: int  # utterances
    forced_tokens: int  # per utterance
    encoder_s: float  # median of one batch
    encoder_rtf: float  # encoder time / audio time
    token_s: float  # median of one decoding step of a batch, the encoder left out
    encoder: Speed | None = None  # against the baseline
    token: Speed | None = None


class Compilation(_Part):
    """What torch compiled for the cell, where its runtime compiles."""

    graphs: int
    graph_breaks: int  # places where a graph ended for want of an operator, and Python went on
    while_timed: int  # functions compiled between the first timed call and the last: 0 if every shape was warm

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader of the figures should know, in words."""
        found = []
        if self.graph_breaks:
            found.append(f"the compiled graph is broken in {self.graph_breaks} places")
        if self.while_timed:
            found.append(f"{self.while_timed} functions were compiled while it was timed")
        return tuple(found)


class Noise(_Part):
    """What else went on in the machine while the cell was timed; null where the system does not tell."""

    steal_share: float | None = None  # of the time of the cores used, taken by the hypervisor
    other_load_share: float | None = None  # of the time of the cores used, spent on other processes
    frequency_mhz: tuple[float, float] | None = None  # lowest and highest seen
    cgroup_throttled: int | None = None  # times that the CPU quota of a container stopped it
    thermal_throttled: int | None = None  # times that the processor slowed down for heat
    gpu_clock_mhz: tuple[float, float] | None = None
    gpu_throttled: tuple[str, ...] = ()  # reasons that the driver gave
    flags: tuple[str, ...] = ()  # what a reader of the figures should know, in words


class SplitResult(_Part):
    """Corpus-level figures of one split. WER and CER as fractions; null where there is no text to score."""

    utterances: int
    audio_s: float
    generate_s: float
    tokens: int
    rtf: float
    tokens_per_s: float
    rtf_ci95: tuple[float, float] | None = None  # from three passes over the split
    latency_p50_s: float | None  # per batch
    latency_p90_s: float | None = None  # from 64 samples
    latency_p99_s: float | None = None  # from 662 samples
    wer: float | None = None
    cer: float | None = None
    substitutions: int | None = None
    deletions: int | None = None
    insertions: int | None = None
    hits: int | None = None
    ref_words: int | None = None
    char_errors: int | None = None
    ref_chars: int | None = None
    empty_share: float | None = None
    loop_share: float | None = None

    @model_validator(mode="after")
    def _has_all_counts_or_none(self) -> SplitResult:
        counts = (self.substitutions, self.deletions, self.insertions, self.hits, self.ref_words, self.char_errors)
        if len({count is None for count in (*counts, self.ref_chars)}) > 1:
            raise ValueError("some counts are there and others are not")
        return self


class Stages(_Part):
    """Wall seconds of each stage; null for one that did not run."""

    load_s: float | None = None
    features_s: float | None = None  # near zero when the corpus's features are cached
    quantize_s: float | None = None
    calibrate_s: float | None = None
    first_inference_s: float | None = None  # the first batch that the model ever decodes, part of the warm-up
    compile_s: float | None = None  # runtime=compile only
    warmup_s: float | None = None
    measure_s: float | None = None  # the timed `generate` calls together
    total_s: float | None = None  # the whole cell, process start included


class EngineStages(_Part):
    """whisper.cpp's own clocks over the timed pass, as it prints them: Andreyev's Table II (arXiv 2503.09905).

    A pass over 2 to 15 tokens counts as batchd, so that the prompt of 4 tokens is there; over more as prompt.
    """

    load_s: float
    mel_s: float  # 0, as the features are ours
    sample_s: float
    encode_s: float
    decode_s: float  # passes over one token
    batchd_s: float
    prompt_s: float
    total_s: float  # wall, from the first timed call to the last


class Problem(_Part):
    """An utterance with something about it that a reader of the figures should know."""

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
        "few words",  # far fewer than a recording of its length has
    ]
    detail: str
    measured: bool = False  # whether it is in the figures all the same, and not left out


_CONFIG = shape_of(RunConfig)


class Record(_Part):
    schema_version: int = SCHEMA_VERSION
    cell_id: str
    status: Status
    reason: str | None = None  # one line, for every status but ok
    traceback: str | None = None
    created_at: str  # UTC, ISO 8601
    config: dict[str, Any]  # RunConfig, resolved
    fingerprints: dict[str, str] = Field(default_factory=dict)  # checkpoint, corpus
    environment: dict[str, Any] = Field(default_factory=dict)  # versions, processor, threads, commit
    receipt: Receipt | None = None
    stages: Stages = Stages()
    engine_stages: EngineStages | None = None  # where the engine keeps clocks of its own
    peak_memory_bytes: int | None = None
    peak_reserved_bytes: int | None = None  # CUDA only
    speed: Speed | None = None  # natural work against the baseline, where the protocol interleaves
    fixed_work: FixedWork | None = None
    compilation: Compilation | None = None  # runtime=compile only
    noise: Noise | None = None
    energy_j: float | None = None  # of the timed region, where it can be read
    energy_source: str | None = None  # what was read: NVML, RAPL
    normaliser: str = "whisper"  # the one behind the counts of the utterances
    digests: dict[str, str] = Field(default_factory=dict)  # raw file → SHA-256, set by `write`
    calibration_ids: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    splits: dict[str, SplitResult] = Field(default_factory=dict)

    @field_validator("config")
    @classmethod
    def _has_the_shape_of_a_run_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Whoever reads records sorts, groups and prints by settings, and relies on what they are."""
        check(config, _CONFIG)
        return config

    @field_validator("environment")
    @classmethod
    def _names_versions(cls, environment: dict[str, Any]) -> dict[str, Any]:
        versions = environment.get("versions") or {}
        if not isinstance(versions, dict) or not all(isinstance(item, str | None) for item in versions.values()):
            raise ValueError("versions: a text for each library")
        return environment

    @property
    def cold_start_s(self) -> float | None:
        """Load, quantize, calibrate, compile and the first inference, imports left out. Null where one is missing."""
        stages = self.stages
        parts = (stages.load_s, stages.quantize_s, stages.first_inference_s)
        if any(part is None for part in parts):
            return None
        return sum(part for part in parts if part is not None) + (stages.calibrate_s or 0.0) + (stages.compile_s or 0.0)

    @property
    def size_reduction(self) -> float | None:
        """1 − size / fp32 size, by DESIGN's definition; null when nothing was loaded."""
        return None if self.receipt is None else 1 - self.receipt.size_bytes / self.receipt.baseline_bytes

    @property
    def corpus(self) -> str:
        """What a person calls the corpus as it was heard, e.g. `demo+white10dB`."""
        kind, snr_db = self.setting("dataset.noise.kind"), self.setting("dataset.noise.snr_db")
        return corpus_label(str(self.setting("dataset.name")), kind, snr_db)

    def setting(self, key: str) -> Any:
        """The value at a dotted key of the resolved configuration (`quant.bits`); None where it has none."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


class Exported(_Part):
    """What became of the model itself; no part of the record, as where things lie is no result."""

    folder: str
    problem: str | None = None  # one line: why the folder is not there, though the cell was measured


class CellResult(BaseModel):
    """A record with its raw samples, as `run_cell` returns it and `write` stores it."""

    model_config = ConfigDict(frozen=True)
    record: Record
    utterances: tuple[Utterance, ...] = ()
    batches: tuple[Batch, ...] = ()
    exported: Exported | None = None  # null where no model was to be kept


def to_json(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces; what hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
