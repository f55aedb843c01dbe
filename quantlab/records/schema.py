"""Record schema: the result of one cell, complete in itself.

Rates are never stored without the counts they come from, so that every figure can be computed again.
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

# A record may have been made by anybody: whatever is computed from numbers within these bounds is finite.
Count = Annotated[int, Field(ge=0, le=2**53)]
Figure = Annotated[float, Field(ge=0, le=1e15)]
Divisor = Annotated[float, Field(ge=1e-9, le=1e15)]  # a clock counts nanoseconds
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=1_000_000)]  # of what was said; aligning it takes the square of its length
_ROUNDING = 1e-6  # relative


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"its lower end {ends[0]:g} is above its upper end {ends[1]:g}")
    return ends


Interval = Annotated[tuple[Figure, Figure], AfterValidator(_ordered)]


class _Part(BaseModel):
    # No NaN: JSON has none, it would be stored as null and the record could not be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class ModuleReceipt(_Part):
    """One module that could have been quantized (a Linear), before and after."""

    name: str
    class_before: str
    class_after: str
    dtypes: dict[str, str]  # stored tensor → dtype, after
    bytes_before: Count
    bytes_after: Count
    kernel: str | None = None  # what multiplies, as far as the library tells
    quantized: bool
    skipped: str | None = None  # why it was left alone on purpose: outside the target, skip=…, head=false


class Receipt(_Part):
    """What proves that quantization happened, read off the model and never off the config."""

    modules: tuple[ModuleReceipt, ...]
    modules_total: Count
    modules_quantized: Count
    bytes_by_dtype: dict[str, Count]
    size_bytes: Count  # unique tensors of the whole model, tied ones once
    baseline_bytes: Annotated[Count, Field(gt=0)]  # the same model in fp32 before quantization
    params: Count  # of the model before quantization, tied ones once
    verified: bool
    problems: tuple[str, ...] = ()  # why not verified: the modules that should have changed and did not


class Utterance(_Part):
    """One scored utterance: raw text on both sides, and the counts after normalisation."""

    id: str
    split: str
    speaker: str | None
    audio_s: Figure
    reference: Text
    hypothesis: Text | None  # null when weights are random
    tokens: Count  # generated
    substitutions: Count | None = None  # of the record's error unit: words, or characters
    deletions: Count | None = None
    insertions: Count | None = None
    hits: Count | None = None
    char_errors: Count | None = None  # S + D + I over characters
    ref_chars: Count | None = None
    loop: bool | None = None  # an n-gram repeated until the length limit
    nonspeech: bool = False  # the reference has no word: in no error rate, what was heard counts by itself

    @property
    def errors(self) -> int | None:
        """S + D + I; None where there is no text."""
        return added(self.substitutions, self.deletions, self.insertions)


class Batch(_Part):
    """One timed call: `generate` as it comes, the encoder alone, or decoding a forced number of tokens."""

    split: str
    index: Count  # which batch of the split
    utterances: Annotated[Count, Field(gt=0)]
    audio_s: Divisor
    tokens: Count  # generated; 0 for the encoder
    elapsed_s: Divisor
    of: Literal["cell", "baseline"] = "cell"
    work: Work = "natural"
    block: Count | None = None  # calls of one A B B A block share it; null where nothing was interleaved


class Speed(_Part):
    """Time of the cell / time of its baseline in a typical block of calls that took turns on the same batches."""

    ratio: Divisor
    ci95: Interval
    converged: bool  # the interval is as narrow as the protocol asks
    verdict: Literal["faster", "slower", "no difference", "not converged"]
    blocks: Count  # of A B B A


class FixedWork(_Part):
    """What the same work costs, as quantization changes how many tokens come out."""

    batch_size: Count  # utterances
    forced_tokens: Count  # per utterance
    encoder_s: Figure  # median of one batch
    encoder_rtf: Figure  # encoder time / audio time
    token_s: Figure  # median of one decoding step of a batch, the encoder left out
    encoder: Speed | None = None  # against the baseline
    token: Speed | None = None


class Compilation(_Part):
    """What torch compiled for the cell, where its runtime compiles."""

    graphs: Count
    graph_breaks: Count  # places where a graph ended for want of an operator, and Python went on
    while_timed: Count  # functions compiled between the first timed call and the last: 0 if every shape was warm

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

    utterances: Annotated[Count, Field(gt=0)]
    audio_s: Divisor
    generate_s: Divisor
    tokens: Count
    rtf: Figure
    tokens_per_s: Figure
    rtf_ci95: Interval | None = None  # from three passes over the split
    latency_p50_s: Figure | None  # per batch
    latency_p90_s: Figure | None = None  # from 64 samples
    latency_p99_s: Figure | None = None  # from 662 samples
    wer: Figure | None = None
    cer: Figure | None = None
    substitutions: Count | None = None
    deletions: Count | None = None
    insertions: Count | None = None
    hits: Count | None = None
    ref_words: Count | None = None  # or characters, as all counts but the next two
    char_errors: Count | None = None
    ref_chars: Count | None = None
    empty_share: Share | None = None
    loop_share: Share | None = None
    loops: Count | None = None  # utterances
    loop_errors: Count | None = None  # in them
    nonspeech_s: Figure | None = None  # audio in which nothing is said; null where none was measured, as the next two
    nonspeech_words: Count | None = None  # heard in it, in the error unit
    nonspeech_words_per_min: Figure | None = None

    @property
    def errors(self) -> int | None:
        """S + D + I; None where there is no text."""
        return added(self.substitutions, self.deletions, self.insertions)

    @model_validator(mode="after")
    def _has_all_counts_or_none(self) -> SplitResult:
        counts = (self.substitutions, self.deletions, self.insertions, self.hits, self.ref_words, self.char_errors)
        if len({count is None for count in (*counts, self.ref_chars)}) > 1:
            raise ValueError("some counts are there and others are not")
        return self

    @model_validator(mode="after")
    def _says_the_same_twice(self) -> SplitResult:
        """Whoever shows a rate shows what follows from the counts, and no record can say otherwise."""
        _same("rtf", self.rtf, self.generate_s, self.audio_s)
        _same("tokens_per_s", self.tokens_per_s, self.tokens, self.generate_s)
        errors, hits = self.errors, self.hits
        _same("wer", self.wer, errors, self.ref_words)
        _same("cer", self.cer, self.char_errors, self.ref_chars)
        heard = None if self.nonspeech_words is None else 60 * self.nonspeech_words
        _same("nonspeech_words_per_min", self.nonspeech_words_per_min, heard, self.nonspeech_s)
        if (self.loop_errors or 0) > (errors or 0):
            raise ValueError(f"loop_errors={self.loop_errors} of {errors} errors")
        if hits is not None and self.ref_words != added(self.substitutions, self.deletions, hits):
            raise ValueError(f"ref_words={self.ref_words} is not substitutions + deletions + hits")
        return self


def added(*counts: int | None) -> int | None:
    """Their sum; None where one is missing."""
    return None if None in counts else sum(count for count in counts if count is not None)


def _same(name: str, rate: float | None, count: float | None, length: float | None) -> None:
    """See that a rate is its count / its length, and absent where it has none.

    Raises:
        ValueError: it is not; the message names it.
    """
    expected = count / length if count is not None and length else None
    if (rate is None) != (expected is None) or (
        rate is not None and expected is not None and not math.isclose(rate, expected, rel_tol=_ROUNDING, abs_tol=1e-12)
    ):
        raise ValueError(f"{name}={rate} does not follow from its counts, {count} / {length}")


class Stages(_Part):
    """Wall seconds of each stage; null for one that did not run."""

    load_s: Figure | None = None
    features_s: Figure | None = None  # near zero when the corpus's features are cached
    quantize_s: Figure | None = None
    calibrate_s: Figure | None = None
    first_inference_s: Figure | None = None  # the first batch that the model ever decodes, part of the warm-up
    compile_s: Figure | None = None  # runtime=compile only
    warmup_s: Figure | None = None
    measure_s: Figure | None = None  # the timed `generate` calls together
    total_s: Figure | None = None  # the whole cell, process start included


class EngineStages(_Part):
    """whisper.cpp's own clocks over the timed pass, as it prints them: Andreyev's Table II (arXiv 2503.09905).

    A pass over 2 to 15 tokens counts as batchd, so that the prompt of 4 tokens is there; over more as prompt.
    """

    load_s: Figure
    mel_s: Figure  # 0, as the features are ours
    sample_s: Figure
    encode_s: Figure
    decode_s: Figure  # passes over one token
    batchd_s: Figure
    prompt_s: Figure
    total_s: Figure  # wall, from the first timed call to the last


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
        "cut off",  # by the limit of tokens
        "few words",  # far fewer than a recording of its length has
    ]
    detail: str
    measured: bool = False  # whether it is in the figures all the same, and not left out


_CONFIG = shape_of(RunConfig)


def see_that_it_is_a_config(config: dict[str, Any]) -> None:
    """Whoever reads records sorts, groups and prints by settings, and relies on what they are.

    Raises:
        ValueError: they are something else; the message names the key.
    """
    check_plain(config, "config.")
    check(config, _CONFIG)
    stats, noise = config.get("stats") or {}, config.get("dataset", {}).get("noise") or {}
    if (noise.get("kind") is None) != (noise.get("snr_db") is None):
        raise ValueError(f"dataset.noise: kind={noise.get('kind')!r} and snr_db={noise.get('snr_db')} go together")
    try:
        StatsConfig(**{key: value for key, value in stats.items() if key in StatsConfig.model_fields})
    except ValidationError as error:  # a million resamples take a minute, a billion the memory
        first = error.errors()[0]
        raise ValueError(f"stats.{first['loc'][0]}: {first['msg']}") from None


class OriginalFile(_Part):
    """The file of another program that a checkpoint was taken from."""

    name: str
    format: str  # ctranslate2, ggml, openai
    sha256: str
    quantized_as: str | None = None  # formats of what is no floats


class Record(_Part):
    """What is kept of one cell beside raw texts and timings; `_s` is seconds, `_bytes` bytes, rates are fractions."""

    schema_version: int = SCHEMA_VERSION
    cell_id: str
    status: Status
    reason: str | None = None  # one line, for every status but ok
    traceback: str | None = None
    created_at: str  # UTC, ISO 8601
    config: dict[str, Any]  # RunConfig, resolved
    fingerprints: dict[str, str] = Field(default_factory=dict)  # checkpoint, corpus
    original: OriginalFile | None = None  # where the checkpoint is no folder of transformers
    environment: dict[str, Any] = Field(default_factory=dict)  # versions, processor, threads, commit
    receipt: Receipt | None = None
    stages: Stages = Stages()
    engine_stages: EngineStages | None = None  # where the engine keeps clocks of its own
    peak_memory_bytes: Count | None = None  # on CUDA what torch allocated: null for an engine that allocates by itself
    peak_reserved_bytes: Count | None = None  # CUDA only
    gpu_process_bytes: Count | None = None  # CUDA only: what NVML counts for the process, whoever allocated it
    speed: Speed | None = None  # natural work against the baseline, where the protocol interleaves
    fixed_work: FixedWork | None = None
    compilation: Compilation | None = None  # runtime=compile only
    noise: Noise | None = None
    energy_j: Figure | None = None  # of the timed region, where it can be read
    energy_source: str | None = None  # what was read: NVML, RAPL
    normaliser: str = "whisper"  # the one behind the counts of the utterances
    error_unit: ErrorUnit = "word"  # what `wer` and its counts are of
    scorer: str = "jiwer"  # what aligned them
    digests: dict[str, str] = Field(default_factory=dict)  # raw file → SHA-256, set by `write`
    calibration_ids: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    splits: dict[str, SplitResult] = Field(default_factory=dict)

    @field_validator("config")
    @classmethod
    def _has_the_shape_of_a_run_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        see_that_it_is_a_config(config)
        return config

    @field_validator("environment")
    @classmethod
    def _names_versions(cls, environment: dict[str, Any]) -> dict[str, Any]:
        check_plain(environment, "environment.")
        versions = environment.get("versions") or {}
        if not isinstance(versions, dict) or not all(isinstance(item, str | None) for item in versions.values()):
            raise ValueError("versions: a text for each library")
        return environment

    @field_validator("created_at")
    @classmethod
    def _is_a_moment(cls, created_at: str) -> str:
        """In UTC, as the later of two records is found by comparing the texts."""
        try:
            moment = datetime.fromisoformat(created_at)
        except ValueError:
            raise ValueError(f"{shortened(created_at)} is no time in ISO 8601") from None
        if moment.utcoffset() != timedelta(0) or not 1970 <= moment.year < 9999 or created_at[10:11] != "T":
            raise ValueError(f"{shortened(created_at)}: expected a time in UTC, as 2026-01-31T12:00:00+00:00")
        return created_at

    @model_validator(mode="after")
    def _has_figures_if_it_ended_well(self) -> Record:
        if self.status == "ok" and (self.receipt is None or not self.splits):
            raise ValueError("status=ok, and it has no receipt or no figures")
        return self

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
