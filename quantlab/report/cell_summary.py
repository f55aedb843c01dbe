"""Summary of one cell for reports: its record, statistics over its utterances, matching published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from quantlab.analysis.evidence import Comparison, Evidence, SplitEvidence, Word
from quantlab.analysis.hidden import KINDS, Failure
from quantlab.analysis.nonspeech import NonspeechComparison
from quantlab.analysis.references import Reference
from quantlab.config.schema import AS_SHIPPED
from quantlab.config.streaming import READS
from quantlab.quantization.base import FLOATS
from quantlab.quantization.select import HEAD
from quantlab.records import labels
from quantlab.records.figures import over_splits
from quantlab.records.measured import KeywordFigures
from quantlab.records.schema import Adaptive, OriginalFile, Problem, Receipt, Record, SplitResult, Status, added
from quantlab.records.word_times import WordTimes
from quantlab.report import costs
from quantlab.report.settings import Settings
from quantlab.stats.estimate import Estimate, Interval

Rate = Literal["wer", "cer"]
Reproduced = Literal["reproduced", "not reproduced", "not comparable"]
EXACTLY_0, EXACTLY_1 = Estimate(0.0, (0.0, 0.0)), Estimate(1.0, (1.0, 1.0))  # of a baseline against itself


@dataclass(frozen=True)
class Checkpoint:
    """Name and content hash of the checkpoint."""

    name: str
    fingerprint: str | None
    original: OriginalFile | None  # the source file, if the checkpoint is not a folder of transformers


@dataclass(frozen=True)
class Corpus:
    """Name and fingerprint of the corpus; the name of a manifest is its file name."""

    name: str
    fingerprint: str | None


@dataclass(frozen=True)
class SplitSummary:
    """Recorded figures of one split, with intervals and differences to the reference."""

    result: SplitResult
    evidence: SplitEvidence = field(default_factory=SplitEvidence)

    def rate(self, rate: Rate) -> Estimate | None:
        """WER or CER as a fraction."""
        wer = rate == "wer"
        ci95 = self.evidence.wer_ci95 if wer else self.evidence.cer_ci95
        return _estimate(self.result.wer if wer else self.result.cer, ci95)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        found = self.evidence
        return self.result.model_dump(mode="json", exclude={"streaming"}) | {
            "wer_ci95": _listed(found.wer_ci95),
            "cer_ci95": _listed(found.cer_ci95),
            "ci_unit": found.ci_unit,
            "ci_units": found.ci_units,
            **pair("wer_difference", found.wer_difference),
            **pair("cer_difference", found.cer_difference),
        }


@dataclass(frozen=True)
class Compared:
    """A published figure and the measured one, both in the unit of the source."""

    source: str
    where: str
    metric: str
    split: str | None  # as the source names it
    unit: str | None
    value: float
    published: str  # the value, with as many digits as in the source
    measured: Estimate | None
    verdict: Reproduced
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            **{name: value for name, value in vars(self).items() if name not in ("measured", "verdict", "reason")},
            "measured": self.measured and self.measured.value,
            "ci95": self.measured and _listed(self.measured.ci95),
            "verdict": self.verdict,
            "reason": self.reason,
        }


@dataclass(frozen=True, eq=False)
class CellSummary:
    """Summary of one cell. Figures are fractions, seconds and bytes; a missing figure is None, never 0."""

    record: Record
    evidence: Evidence = field(default_factory=Evidence)  # statistics over its utterances; empty if they were not read
    root: Path = Path("mlruns")  # folder of its raw files
    published: tuple[Compared, ...] = ()  # published figures of the same cell
    word_times: Mapping[str, WordTimes] = field(default_factory=dict)  # by split, against the baseline's times

    @property
    def cell_id(self) -> str:
        """Identifier of the cell, which is the name of its folder."""
        return self.record.cell_id

    @property
    def status(self) -> Status:
        """Outcome of the cell."""
        return self.record.status

    @property
    def ok(self) -> bool:
        """Whether the cell was measured."""
        return self.record.status == "ok"

    @property
    def baseline(self) -> str | None:
        """Cell id of the baseline; its own id if the cell is a baseline."""
        return self.evidence.baseline

    @property
    def is_baseline(self) -> bool:
        """Whether the cell is a baseline."""
        return self.baseline == self.cell_id

    @property
    def is_compared_elsewhere(self) -> bool:
        """Whether the baseline was measured on another machine, so that only texts are compared."""
        return self.record.bundle is not None and self.baseline not in (None, self.record.bundle.baseline)

    @property
    def against(self) -> Reference | None:
        """What accuracy is compared with, if a reference was asked for; None: the baseline."""
        return self.evidence.against

    @property
    def reference(self) -> str | None:
        """Id of the cell that accuracy is compared with: the baseline, unless another reference was asked for."""
        return self.evidence.reference

    @property
    def is_reference(self) -> bool:
        """Whether the accuracy of other cells is compared with this one."""
        return self.reference == self.cell_id

    @property
    def verdict(self) -> Word | None:
        """Verdict on the accuracy against the reference."""
        return self.evidence.verdict

    @property
    def comparison(self) -> Comparison | None:
        """Comparison with the reference over all splits."""
        return self.evidence.comparison

    @cached_property
    def settings(self) -> Settings:
        """The settings that reports show."""
        return Settings.of(self.record)

    @cached_property
    def named(self) -> labels.Cell:
        """Parts of the cell's name, and its grouping keys: cells with equal `corpus_key` decoded the same audio."""
        return labels.of_record(self.record)

    @property
    def model(self) -> str:
        """Display name of the checkpoint."""
        return self.named.model

    @property
    def dataset(self) -> str:
        """Display name of the corpus, with its noise."""
        return self.named.dataset

    @property
    def checkpoint(self) -> Checkpoint:
        """By name and content."""
        return Checkpoint(self.model, self.record.fingerprints.get("checkpoint"), self.record.original)

    @property
    def corpus(self) -> Corpus:
        """By name and content."""
        return Corpus(self.named.corpus, self.record.fingerprints.get("corpus"))

    @cached_property
    def splits(self) -> dict[str, SplitSummary]:
        """By name."""
        known = self.evidence.splits
        return {name: SplitSummary(one, known.get(name, SplitEvidence())) for name, one in self.record.splits.items()}

    @property
    def utterances(self) -> int:
        """Number of utterances decoded, over all splits."""
        return sum(split.utterances for split in self.record.splits.values())

    @property
    def stopped_early(self) -> bool:
        """Whether the cell used a part of the corpus only, so that its error rates are not those of the corpus."""
        return self.record.stopped_early

    @property
    def audio_s(self) -> float:
        """Duration of the audio in seconds, over all splits."""
        return sum(split.audio_s for split in self.record.splits.values())

    @cached_property
    def wer(self) -> Estimate | None:
        """Pooled WER: errors of all splits / reference words of all splits; None if a split has no text."""
        splits = self.record.splits.values()
        value = _ratio([one.errors for one in splits], [one.ref_words for one in splits])
        return _estimate(value, self.evidence.wer_ci95)

    @cached_property
    def cer(self) -> Estimate | None:
        """Pooled CER, as `wer`."""
        splits = self.record.splits.values()
        value = _ratio([one.char_errors for one in splits], [one.ref_chars for one in splits])
        return _estimate(value, self.evidence.cer_ci95)

    def rate(self, rate: Rate = "wer", split: str | None = None) -> Estimate | None:
        """WER or CER of a split, or pooled over all splits (None)."""
        if split is None:
            return self.wer if rate == "wer" else self.cer
        return self.splits[split].rate(rate) if split in self.splits else None

    def difference(self, rate: Rate = "wer", split: str | None = None) -> Estimate | None:
        """WER or CER minus the reference's, in a split or over all (None). None for the reference itself."""
        part = self.comparison if split is None else self.evidence.splits.get(split)
        if part is None:
            return None
        return part.wer_difference if rate == "wer" else part.cer_difference

    def increase(self, rate: Rate = "wer", split: str | None = None) -> Estimate | None:
        """As `difference`, but exactly 0 for the reference itself."""
        return EXACTLY_0 if self.is_reference and self.wer is not None else self.difference(rate, split)

    @cached_property
    def rtf(self) -> Estimate | None:
        """Real-time factor over all splits: total timed generation time / total audio duration.

        Its interval is the audio-weighted mean of the splits' intervals, as if their errors had the same sign.
        """
        splits = self.record.splits.values()
        if not splits:
            return None
        value = sum(one.generate_s for one in splits) / self.audio_s
        intervals = [(one.rtf_ci95, one.audio_s) for one in splits if one.rtf_ci95 is not None]
        if len(intervals) < len(splits):
            return Estimate(value)
        low, high = (sum(ci95[end] * audio_s for ci95, audio_s in intervals) / self.audio_s for end in (0, 1))
        return Estimate(value, (low, high))

    @property
    def ratio(self) -> Estimate | None:
        """Time of the cell / time of its baseline; 1 for the baseline; None if the two were not timed in turns."""
        if self.is_baseline:
            return EXACTLY_1
        return None if self.record.speed is None else Estimate(self.record.speed.ratio, self.record.speed.ci95)

    @property
    def size_bytes(self) -> int | None:
        """Size of the model: unique tensors, tied ones counted once."""
        return None if self.record.receipt is None else self.record.receipt.size_bytes

    @property
    def embedding_bytes(self) -> int | None:
        """Size of the token embedding that a quantized model still stores as floats; None if there is none.

        It equals the size of the original output projection, which shares the matrix.
        """
        receipt = self.record.receipt
        modules = {} if receipt is None else {item.name: item for item in receipt.modules}
        if receipt is None or not receipt.modules_quantized or HEAD not in modules:
            return None
        size = modules[HEAD].bytes_before
        floats = sum(count for dtype, count in receipt.bytes_by_dtype.items() if dtype in FLOATS)
        return size if floats >= size and not any("embed_tokens" in name for name in modules) else None

    @property
    def nonspeech_words_per_min(self) -> Estimate | None:
        """Words written per minute of audio without speech, over all splits that have such audio."""
        parts = [split for split in self.record.splits.values() if split.nonspeech_s]
        audio_s = sum(split.nonspeech_s or 0.0 for split in parts)
        known = self.evidence.nonspeech
        value = 60 * sum(split.nonspeech_words or 0 for split in parts) / audio_s if audio_s else None
        return _estimate(value, None if known is None else known.ci95)

    @property
    def nonspeech(self) -> NonspeechComparison | None:
        """Its comparison with the reference; None for the reference itself."""
        return None if self.evidence.nonspeech is None else self.evidence.nonspeech.comparison

    def nonspeech_in(self, split: str) -> Estimate | None:
        """Words per minute of the audio without speech in a split."""
        if split not in self.record.splits:
            return None
        known = self.evidence.nonspeech
        ci95 = None if known is None else known.splits.get(split)
        return _estimate(self.record.splits[split].nonspeech_words_per_min, ci95)

    @property
    def loops_inserted(self) -> float | None:
        """Inserted words in loops / all inserted words; None without any, or if an older record did not count them."""
        splits = self.record.splits.values()
        return _ratio([one.loop_insertions for one in splits], [one.insertions for one in splits])

    @property
    def streaming_settings(self) -> dict[str, Any]:
        """The policy, then the keys that it reads."""
        policy = str(self.record.setting("runtime.streaming.policy"))
        keys = READS.get(policy, ())
        return {"policy": policy} | {key: self.record.setting(f"runtime.streaming.{key}") for key in keys}

    def streaming_increase(self, split: str | None = None) -> Estimate | None:
        """Error rate streamed − whole, in a split or over all (None); None without streams or reference words."""
        part = self.record.streaming if split is None else self.record.splits[split].streaming
        known = self.evidence.streaming
        found = None if known is None else known.increase if split is None else known.splits.get(split)
        return None if part is None else _estimate(part.wer_increase, found and found.ci95)

    @cached_property
    def keywords(self) -> KeywordFigures | None:
        """Occurrences of the keywords over all splits; None if none were counted."""
        return over_splits([split.keywords for split in self.record.splits.values() if split.keywords is not None])

    @property
    def flags(self) -> tuple[str, ...]:
        """Descriptions of what disturbed the timing of the cell."""
        return () if self.record.noise is None else self.record.noise.flags

    @property
    def no_baseline(self) -> str | None:
        """Why the cell can have no baseline; None if the baseline is possible and merely not recorded."""
        if self.record.bundle is not None:
            return (
                "its bundle has no unquantized model, and no fp32 cell of the same audio is recorded: add an export of "
                "ggml_f16, ct2_float32 or ort_fp32 to the bundle"
            )
        if self.record.setting("quant.library") != AS_SHIPPED or "baseline" in self.record.fingerprints:
            return None
        return "the model that the file was made from is unknown, so it has no verdict: set baseline.path=FOLDER"

    def to_dict(self) -> dict[str, Any]:
        """Contents of the JSON report; all formats share the keys."""
        record, receipt, named = self.record, self.record.receipt, self.named
        return {
            "cell_id": record.cell_id,
            "status": record.status,
            "reason": record.reason,
            **vars(self.settings),
            "model": named.model,
            "checkpoint": {
                "name": named.model,
                "fingerprint": self.checkpoint.fingerprint,
                "original": None if record.original is None else record.original.model_dump(),
            },
            "dataset": named.dataset,
            "corpus": vars(self.corpus),
            "size_bytes": self.size_bytes,
            "size_reduction": record.size_reduction,
            "embedding_bytes": self.embedding_bytes,
            "params": None if receipt is None else receipt.params,
            "bits_per_weight": costs.bits_per_weight(record),
            "bytes_per_token": costs.bytes_per_token(record),
            "bit_ops_per_s": costs.bit_ops_per_s(record),
            "splits": {
                name: split.to_dict()
                | pair("nonspeech_words_per_min", self.nonspeech_in(name))
                | {"word_times_against_baseline": (times := self.word_times.get(name)) and times.model_dump()}
                for name, split in self.splits.items()
            },
            "wer": None if self.wer is None else self.wer.value,
            "wer_ci95": _listed(self.evidence.wer_ci95),
            "cer": None if self.cer is None else self.cer.value,
            "cer_ci95": _listed(self.evidence.cer_ci95),
            "baseline": self.baseline,
            "verdict": self.verdict,
            "no_baseline": self.no_baseline,
            "against": None if self.against is None else self.against._asdict(),
            "comparison": None if self.comparison is None else _comparison(self.comparison),
            "adaptive": None if record.adaptive is None else _adaptive(record.adaptive),
            "normaliser": record.normaliser,
            "error_unit": record.error_unit,
            "scorer": record.scorer,
            **pair("nonspeech_words_per_min", self.nonspeech_words_per_min),
            "nonspeech_comparison": None if self.nonspeech is None else _nonspeech(self.nonspeech),
            "no_regression": (found := self.evidence.no_regression)
            and {"share": found.value, "ci95": _listed(found.ci95)},
            "hidden": {kind: _failure(self.evidence.hidden.get(kind)) for kind in KINDS},
            "loops_inserted_share": self.loops_inserted,
            "keywords": self.keywords and self.keywords.model_dump(mode="json"),
            "streaming": self._streaming(),
            **record.stages.model_dump(),
            "cold_start_s": record.cold_start_s,
            **record.model_dump(mode="json", include={"engine_stages", "speed", "fixed_work", "compilation", "noise"}),
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
            "published": [item.to_dict() for item in self.published],
            **pair("rtf", self.rtf),
            "model_path": record.setting("model.path"),
        }

    def _streaming(self) -> dict[str, Any] | None:
        """Settings and figures of the streams, over all splits and of each; None without any."""
        whole = self.record.streaming
        if whole is None:
            return None
        splits = {
            name: split.streaming.model_dump(mode="json") | pair("wer_increase", self.streaming_increase(name))
            for name, split in self.record.splits.items()
            if split.streaming is not None
        }
        figures = whole.model_dump(mode="json") | pair("wer_increase", self.streaming_increase())
        return self.streaming_settings | figures | {"splits": splits}


def _estimate(value: float | None, ci95: Interval | None) -> Estimate | None:
    return None if value is None else Estimate(value, ci95)


def _ratio(counts: Sequence[int | None], lengths: Sequence[int | None]) -> float | None:
    """Sum of counts / sum of lengths; None if one is missing."""
    count, length = added(*counts), added(*lengths)
    return count / length if count is not None and length else None


def _listed(ci95: Interval | None) -> list[float] | None:
    return None if ci95 is None else list(ci95)


def pair(name: str, found: Estimate | None) -> dict[str, Any]:
    """A figure and its interval, under two keys."""
    return {name: found and found.value, f"{name}_ci95": found and _listed(found.ci95)}


def _comparison(found: Comparison) -> Mapping[str, Any]:
    first = pair("wer_difference", found.wer_difference) | pair("cer_difference", found.cer_difference)
    return first | {name: value for name, value in vars(found).items() if name not in first}


def _nonspeech(found: NonspeechComparison) -> Mapping[str, Any]:
    return vars(found) | pair("difference", found.difference)


def _adaptive(found: Adaptive) -> dict[str, Any]:
    return {"used": found.used, "available": found.available, "stopped_by": found.stopped_by, "cells": found.cells} | {
        "looks": [look.model_dump(mode="json") for look in found.looks]
    }


def _failure(found: Failure | None) -> dict[str, Any] | None:
    if found is None:
        return None
    figures = {name: getattr(found, name) for name in ("difference", "p", "p_holm", "verdict")}
    return {"share": found.share.value, "ci95": _listed(found.share.ci95)} | figures


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return receipt.model_dump(exclude={"modules", "params", "size_bytes"})


def _problem(item: Problem) -> dict[str, Any]:
    what = f"{item.kind}: {item.detail}"
    return {"id": item.utterance, "split": item.split, "kind": item.kind, "what": what, "measured": item.measured}
