"""The record: a cell's result on disk, complete in itself, there whole or not at all.

    <output_dir>/cells/<cell_id>/record.json        everything but the utterances
    <output_dir>/cells/<cell_id>/utterances.jsonl   raw references and hypotheses, one utterance a line
    <output_dir>/cells/<cell_id>/batches.jsonl      raw timings, one timed call a line, in the order measured

Rates are never stored without the counts they come from, so that every figure can be computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticSerializationError

from quantlab.redact import redact

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


class Stages(_Part):
    """Wall seconds of each stage; null for one that did not run."""

    load_s: float | None = None
    features_s: float | None = None  # near zero when the corpus's features are cached
    quantize_s: float | None = None
    calibrate_s: float | None = None
    first_inference_s: float | None = None  # the first batch that the model ever decodes, part of the warm-up
    warmup_s: float | None = None
    measure_s: float | None = None  # the timed `generate` calls together
    total_s: float | None = None  # the whole cell, process start included


class Problem(_Part):
    """An utterance that was not measured, named."""

    utterance: str
    split: str
    kind: Literal["unreadable", "empty reference", "too long"]
    detail: str


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
    peak_memory_bytes: int | None = None
    peak_reserved_bytes: int | None = None  # CUDA only
    speed: Speed | None = None  # natural work against the baseline, where the protocol interleaves
    fixed_work: FixedWork | None = None
    noise: Noise | None = None
    energy_j: float | None = None  # of the timed region, where it can be read
    energy_source: str | None = None  # what was read: NVML, RAPL
    normaliser: str = "whisper"  # the one behind the counts of the utterances
    digests: dict[str, str] = Field(default_factory=dict)  # raw file → SHA-256, set by `write`
    calibration_ids: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    splits: dict[str, SplitResult] = Field(default_factory=dict)

    @property
    def cold_start_s(self) -> float | None:
        """Load, quantize, calibrate and the first inference; imports are left out. Null where one is missing."""
        stages = self.stages
        parts = (stages.load_s, stages.quantize_s, stages.first_inference_s)
        if any(part is None for part in parts):
            return None
        return sum(part for part in parts if part is not None) + (stages.calibrate_s or 0.0)

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


class CellResult(BaseModel):
    """A record with its raw samples, as `run_cell` returns it and `write` stores it."""

    model_config = ConfigDict(frozen=True)
    record: Record
    utterances: tuple[Utterance, ...] = ()
    batches: tuple[Batch, ...] = ()


def cells_dir(root: str | Path) -> Path:
    return Path(root) / "cells"


def write(root: str | Path, result: CellResult) -> Path:
    """Store a result, without credentials; whoever reads finds the old record, the new one or none, never a half.

    Safe against other processes that write or clean up below the same root.

    Returns:
        The folder `<root>/cells/<cell_id>`.
    """
    final = cells_dir(root) / result.record.cell_id
    with _locked(root):
        fresh = _sibling(final, "tmp")
        fresh.mkdir()
        try:
            _write_lines(fresh / "utterances.jsonl", map(_json, result.utterances))
            _write_lines(fresh / "batches.jsonl", map(_json, result.batches))
            record = _public(result.record).model_copy(update={"digests": digests(fresh)})
            _write_lines(fresh / "record.json", [_json(record, indent=1)])
            _fsync(fresh)
            _swap(fresh, final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return final


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each raw file of a record, in hexadecimal, by file name."""
    names = ("utterances.jsonl", "batches.jsonl")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@contextlib.contextmanager
def _locked(root: str | Path) -> Iterator[None]:
    """Keep other processes out, so that what looks like a leftover is one; a kill frees the lock."""
    cells_dir(root).mkdir(parents=True, exist_ok=True)
    with FileLock(cells_dir(root) / ".lock"):
        yield


def _public(record: Record) -> Record:
    free_text = ("config", "environment", "reason", "traceback")
    return record.model_copy(update={name: redact(getattr(record, name)) for name in free_text})


def _json(part: BaseModel, indent: int | None = None) -> str:
    try:
        return part.model_dump_json(indent=indent)
    except PydanticSerializationError:  # a file name that is no UTF-8, held as lone surrogates
        text = json.dumps(part.model_dump(), indent=indent, ensure_ascii=False)
        return text.encode("utf-8", errors="replace").decode("utf-8")


def _swap(fresh: Path, final: Path) -> None:
    """rename(2) cannot replace a folder that has files in it, so an old record steps aside first."""
    if not final.exists():
        fresh.rename(final)
    else:
        old = _sibling(final, "old")
        final.rename(old)
        fresh.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    _fsync(final.parent)


def _sibling(final: Path, suffix: str) -> Path:
    return final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.{suffix}")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean_leftovers(root: str | Path) -> None:
    """Undo what a kill in the middle of `write` left: half-written folders go, a record that stepped aside returns."""
    if not cells_dir(root).exists():
        return
    with _locked(root):
        for path in cells_dir(root).glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)
        for path in cells_dir(root).glob(".*.old"):
            final = path.with_name(path.name[1:].rsplit(".", 2)[0])
            if final.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.rename(final)


def read(root: str | Path, cell_id: str) -> Record | None:
    """The record of a cell, or None where there is none.

    Raises:
        ValueError: the file is there and is not a record of this schema.
    """
    path = cells_dir(root) / cell_id / "record.json"
    try:
        return Record.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(
            f"{path} is no quantlab record: {where}: {first['msg']}; delete its folder to run the cell again"
        ) from None


def read_all(root: str | Path) -> Iterator[Record]:
    """Every record below `root`, in order of cell id."""
    for path in sorted(cells_dir(root).glob("[!.]*/record.json")):
        record = read(root, path.parent.name)
        if record is not None:
            yield record


def read_utterances(root: str | Path, cell_id: str) -> list[Utterance]:
    return [Utterance.model_validate_json(line) for line in _lines(root, cell_id, "utterances.jsonl")]


def read_batches(root: str | Path, cell_id: str) -> list[Batch]:
    return [Batch.model_validate_json(line) for line in _lines(root, cell_id, "batches.jsonl")]


def _lines(root: str | Path, cell_id: str, name: str) -> list[str]:
    text = (cells_dir(root) / cell_id / name).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line]  # not splitlines(): a hypothesis may hold U+2028


def to_json(value: object) -> str:
    """Canonical JSON: sorted keys, no spaces; what hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
