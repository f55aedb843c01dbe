"""Record schema: the complete result of one cell.

Rates are always stored with their counts, so that every figure can be recomputed.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from quantlab.config.schema import RunConfig, StatsConfig
from quantlab.records.shape import check, check_plain, shape_of
from quantlab.util.errors import shortened
from quantlab.util.languages import ErrorUnit

SCHEMA_VERSION = 1
Status = Literal["ok", "failed", "unsupported", "oom", "timeout"]
Work = Literal["natural", "encoder", "forced"]

# Records may come from anybody; numbers within these bounds cannot overflow in later computations.
Count = Annotated[int, Field(ge=0, le=2**53)]
Figure = Annotated[float, Field(ge=0, le=1e15)]
Divisor = Annotated[float, Field(ge=1e-9, le=1e15)]  # clocks count nanoseconds
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=1_000_000)]  # of one text; alignment takes time quadratic in its length
_ROUNDING = 1e-6  # relative


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"its lower end {ends[0]:g} is above its upper end {ends[1]:g}")
    return ends


Interval = Annotated[tuple[Figure, Figure], AfterValidator(_ordered)]


class _Part(BaseModel):
    # No NaN: JSON has none, so it would be stored as null and the record could not be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class ModuleReceipt(_Part):
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


class Receipt(_Part):
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


class Utterance(_Part):
    """One scored utterance: raw reference and hypothesis, and counts after normalisation."""

    id: str
    split: str
    speaker: str | None
    audio_s: Figure
    reference: Text
    hypothesis: Text | None  # null for random weights
    tokens: Count  # generated
    substitutions: Count | None = None  # in the record's error unit: words or characters
    deletions: Count | None = None
    insertions: Count | None = None
    hits: Count | None = None
    char_errors: Count | None = None  # S + D + I over characters
    ref_chars: Count | None = None
    loop: bool | None = None  # an n-gram repeated until the length limit
    nonspeech: bool = False  # the reference has no word; excluded from error rates, its words are counted separately

    @property
    def errors(self) -> int | None:
        """S + D + I; None without text."""
        return added(self.substitutions, self.deletions, self.insertions)


class Batch(_Part):
    """One timed call: free-running `generate`, the encoder alone, or decoding of a forced number of tokens."""

    split: str
    index: Count  # number of the batch in its split
    utterances: Annotated[Count, Field(gt=0)]
    audio_s: Divisor
    tokens: Count  # generated; 0 for the encoder
    elapsed_s: Divisor
    of: Literal["cell", "baseline"] = "cell"
    work: Work = "natural"
    block: Count | None = None  # number of the A B B A block; null if not interleaved


class Speed(_Part):
    """Time of the cell / time of its baseline, from calls in alternating order on the same batches."""

    ratio: Divisor
    ci95: Interval
    converged: bool  # whether the interval is as narrow as the protocol requires
    verdict: Literal["faster", "slower", "no difference", "not converged"]
    blocks: Count  # number of A B B A blocks


class FixedWork(_Part):
    """Times at equal work, since quantization changes the number of generated tokens."""

    batch_size: Count  # utterances
    forced_tokens: Count  # per utterance
    encoder_s: Figure  # median of one batch
    encoder_rtf: Figure  # encoder time / audio time
    token_s: Figure  # median of one decoding step of a batch, the encoder left out
    encoder: Speed | None = None  # relative to the baseline
    token: Speed | None = None


class Compilation(_Part):
    """Counters of torch.compile for a compiled cell."""

    graphs: Count
    graph_breaks: Count  # places where the graph ended at an unsupported operation and Python continued
    while_timed: Count  # functions compiled between the first and last timed call; 0 if all shapes were warm

    @property
    def flags(self) -> tuple[str, ...]:
        """Warnings for readers of the figures."""
        found = []
        if self.graph_breaks:
            found.append(f"the compiled graph is broken in {self.graph_breaks} places")
        if self.while_timed:
            found.append(f"{self.while_timed} functions were compiled while it was timed")
        return tuple(found)


class Noise(_Part):
    """Interference on the machine while the cell was timed; null if the system does not report it."""

    steal_share: float | None = None  # share of the used cores' time taken by the hypervisor
    other_load_share: float | None = None  # share of the used cores' time spent on other processes
    frequency_mhz: tuple[float, float] | None = None  # lowest and highest seen
    cgroup_throttled: int | None = None  # number of times that the container's CPU quota stopped it
    thermal_throttled: int | None = None  # number of times that the processor throttled due to heat
    gpu_clock_mhz: tuple[float, float] | None = None
    gpu_throttled: tuple[str, ...] = ()  # reasons given by the driver
    flags: tuple[str, ...] = ()  # warnings for readers of the figures


class SplitResult(_Part):
    """Corpus-level figures of one split. WER and CER are fractions; null without text to score."""

    utterances: Annotated[Count, Field(gt=0)]
    audio_s: Divisor
    generate_s: Divisor
    tokens: Count
    rtf: Figure
    tokens_per_s: Figure
    rtf_ci95: Interval | None = None  # requires three passes over the split
    latency_p50_s: Figure | None  # per batch
    latency_p90_s: Figure | None = None  # requires 64 samples
    latency_p99_s: Figure | None = None  # requires 662 samples
    wer: Figure | None = None
    cer: Figure | None = None
    substitutions: Count | None = None
    deletions: Count | None = None
    insertions: Count | None = None
    hits: Count | None = None
    ref_words: Count | None = None  # in the error unit (words or characters), as all counts but the next two
    char_errors: Count | None = None
    ref_chars: Count | None = None
    empty_share: Share | None = None
    loop_share: Share | None = None
    loops: Count | None = None  # number of looping utterances
    loop_errors: Count | None = None  # errors in looping utterances
    nonspeech_s: Figure | None = None  # audio without speech; null if none was measured, as the next two
    nonspeech_words: Count | None = None  # words (in the error unit) decoded in that audio
    nonspeech_words_per_min: Figure | None = None

    @property
    def errors(self) -> int | None:
        """S + D + I; None without text."""
        return added(self.substitutions, self.deletions, self.insertions)

    @model_validator(mode="after")
    def _has_all_counts_or_none(self) -> SplitResult:
        counts = (self.substitutions, self.deletions, self.insertions, self.hits, self.ref_words, self.char_errors)
        if len({count is None for count in (*counts, self.ref_chars)}) > 1:
            raise ValueError("some counts are missing")
        return self

    @model_validator(mode="after")
    def _rates_match_counts(self) -> SplitResult:
        """Refuse a record whose rates differ from its counts, so that readers can show either."""
        _same("rtf", self.rtf, self.generate_s, self.audio_s)
        _same("tokens_per_s", self.tokens_per_s, self.tokens, self.generate_s)
        errors, hits = self.errors, self.hits
        _same("wer", self.wer, errors, self.ref_words)
        _same("cer", self.cer, self.char_errors, self.ref_chars)
        words = None if self.nonspeech_words is None else 60 * self.nonspeech_words
        _same("nonspeech_words_per_min", self.nonspeech_words_per_min, words, self.nonspeech_s)
        if (self.loop_errors or 0) > (errors or 0):
            raise ValueError(f"loop_errors={self.loop_errors} of {errors} errors")
        if hits is not None and self.ref_words != added(self.substitutions, self.deletions, hits):
            raise ValueError(f"ref_words={self.ref_words} is not substitutions + deletions + hits")
        return self


def added(*counts: int | None) -> int | None:
    """Sum of counts; None if one is missing."""
    return None if None in counts else sum(count for count in counts if count is not None)


def _same(name: str, rate: float | None, count: float | None, length: float | None) -> None:
    """Check that a rate equals count / length, and is missing if there is no length.

    Raises:
        ValueError: it does not; the message names the rate.
    """
    expected = count / length if count is not None and length else None
    if (rate is None) != (expected is None) or (
        rate is not None and expected is not None and not math.isclose(rate, expected, rel_tol=_ROUNDING, abs_tol=1e-12)
    ):
        raise ValueError(f"{name}={rate} does not follow from its counts, {count} / {length}")


class Stages(_Part):
    """Wall time of each stage in seconds; null if it did not run."""

    load_s: Figure | None = None
    features_s: Figure | None = None  # near zero if the features are cached
    quantize_s: Figure | None = None
    calibrate_s: Figure | None = None
    first_inference_s: Figure | None = None  # first batch that the model decodes, part of the warm-up
    compile_s: Figure | None = None  # runtime=compile only
    recover_s: Figure | None = None  # quant.recover only
    warmup_s: Figure | None = None
    measure_s: Figure | None = None  # sum of the timed `generate` calls
    total_s: Figure | None = None  # the whole cell, process start included


class EngineStages(_Part):
    """Stage times of the timed pass as reported by whisper.cpp, as in Andreyev's Table II (arXiv 2503.09905).

    whisper.cpp counts a pass over 2 to 15 tokens as batchd (so the prompt of 4 tokens), over more as prompt.
    """

    load_s: Figure
    mel_s: Figure  # 0, as quantlab computes the features
    sample_s: Figure
    encode_s: Figure
    decode_s: Figure  # passes over a single token
    batchd_s: Figure
    prompt_s: Figure
    total_s: Figure  # wall time from the first timed call to the last


class Problem(_Part):
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


class Recovered(_Part):
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


class OriginalFile(_Part):
    """The file of another program from which the checkpoint was converted."""

    name: str
    format: str  # ctranslate2, ggml, openai
    sha256: str
    quantized_as: str | None = None  # formats of the quantized tensors


class Record(_Part):
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
    energy_j: Figure | None = None  # of the timed region, if it can be read
    energy_source: str | None = None  # NVML or RAPL
    normaliser: str = "whisper"  # normaliser of the texts before counting
    error_unit: ErrorUnit = "word"  # unit of `wer` and its counts
    scorer: str = "jiwer"  # package that aligned the texts
    digests: dict[str, str] = Field(default_factory=dict)  # raw file → SHA-256, set by `write`
    calibration_ids: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    splits: dict[str, SplitResult] = Field(default_factory=dict)

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
    def size_reduction(self) -> float | None:
        """1 − size / fp32 size; None if nothing was loaded."""
        return None if self.receipt is None else 1 - self.receipt.size_bytes / self.receipt.baseline_bytes

    def setting(self, key: str) -> Any:
        """The value at a dotted key of the resolved configuration (`quant.bits`); None if missing."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


class Exported(_Part):
    """Outcome of a model's export; not part of the record, as a location is not a result."""

    folder: str
    problem: str | None = None  # one line: why the measured cell was not exported


class CellResult(BaseModel):
    """A record with its raw samples, as returned by `run_cell` and stored by `write`."""

    model_config = ConfigDict(frozen=True)
    record: Record
    utterances: tuple[Utterance, ...] = ()
    batches: tuple[Batch, ...] = ()
    exported: Exported | None = None  # None if no export was requested


def to_json(value: object) -> str:
    """Canonical JSON for hashing: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
