"""Configuration of how a cell is run, measured and compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from quantlab.config.part import Part
from quantlab.config.streaming import StreamingConfig
from quantlab.config.types import MOST, AudioContext, Count, Dtype, FilePath, Name, Seconds
from quantlab.util.errors import shortened


class DeviceConfig(Part):
    name: Literal["cpu", "cuda", "mps", "auto"] = Field(
        default="auto", description="where the model runs; auto: a GPU if there is one"
    )
    threads: int | None = Field(
        default=None,
        gt=0,
        le=4096,
        description="intra-op threads; null: every core this process may use, or with jobs its part of them",
    )
    pin: bool = Field(
        default=True, description="pin the process to as many cores as it has threads, if the system supports it"
    )


class RuntimeConfig(Part):
    """The runtime that executes the model."""

    name: Literal["eager", "compile"] = Field(
        default="eager", description="eager, or compile: static cache and torch.compile"
    )
    audio_ctx: AudioContext = Field(
        default="full", description="dynamic: the encoder gets only the frames with audio, not the whole window"
    )
    dtype: Dtype = Field(default="float32", description="storage and compute dtype of everything that is not quantized")
    word_times: bool = Field(
        default=False,
        description="find when each word begins and ends, after the timed decoding",
    )
    streaming: StreamingConfig = StreamingConfig()


class ProtocolConfig(Part):
    """The measurement protocol of every cell of a grid."""

    name: Name = Field(description="display name")
    batch_size: int = Field(default=16, gt=0, le=65_536, description="utterances decoded together")
    warmup_batches: int = Field(default=2, ge=0, le=MOST, description="untimed batches before the first timed one")
    max_new_tokens: Count | None = Field(default=None, description="null: as many as the model's positions allow")
    num_beams: int = Field(default=1, gt=0, le=128, description="1: greedy")
    fallbacks: bool = Field(
        default=False, description="dataset.long=sequential: decode a failed window again, by sampling"
    )
    condition_on_prev_tokens: bool = Field(
        default=False, description="dataset.long=sequential: each window is prompted with the text before it"
    )
    interleave: bool = Field(
        default=False, description="time the cell in turns with a resident baseline, until rel_ci or budget_s"
    )
    rel_ci: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="the timing ends once the ratio's 95 % interval / the ratio is at most this wide",
    )
    budget_s: Seconds = Field(default=120.0, description="time limit in seconds for the timing against the baseline")
    forced_tokens: int = Field(default=32, gt=1, le=MOST, description="tokens per utterance in fixed-length timing")
    residency: Literal["auto", "together", "alternate"] = Field(
        default="auto", description="both models in one process, or one process each, in turns"
    )
    looks: int | None = Field(
        default=None,
        gt=1,
        le=100,
        description="how often a cell is compared with its baseline while it is measured, and may stop; null: never",
    )
    stops: Literal["verdict", "beyond"] = Field(
        default="verdict",
        description="looks: a cell stops once it is worse, better or within stats.margin; beyond: only once it is "
        "worse by more than stats.margin",
    )

    @model_validator(mode="after")
    def _stops_or_is_timed(self) -> ProtocolConfig:
        if self.looks is not None and self.interleave:
            raise ValueError(
                f"protocol: interleave=true, looks={self.looks}: one of them; protocol.looks=null times every cell in "
                "turns with its baseline, protocol.interleave=false stops cells early"
            )
        if self.looks is None and self.stops != "verdict":
            raise ValueError(f"protocol: stops={self.stops} is checked at looks: set protocol.looks, e.g. to 10")
        return self


class CalibrationConfig(Part):
    """Data of static schemes and of rounding by data; the study uses 10 % of the evaluation data (arXiv 2511.08093)."""

    fraction: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of the evaluated utterances used for calibration, drawn with the seed",
    )
    source: Literal["eval", "disjoint", "manifest"] = Field(
        default="eval",
        description="eval: these utterances are scored too, as in the study; disjoint: they are excluded from scoring; "
        "manifest: other utterances, those of calibration.path",
    )
    path: FilePath | None = Field(default=None, description="source=manifest: file as of dataset=manifest")
    limit: Count | None = Field(
        default=None, description="source=manifest: this many utterances, drawn with the seed; null: all"
    )
    labels: Literal["self", "reference"] = Field(
        default="self",
        description="tokens given to the decoder (GPTQ, AWQ, SmoothQuant): own output before, or references",
    )

    @model_validator(mode="after")
    def _has_path(self) -> CalibrationConfig:
        if (self.source == "manifest") != (self.path is not None):
            raise ValueError(
                f"calibration: source={self.source}, path={shortened(self.path)}: source=manifest and "
                "path=<a manifest of utterances that are not scored> go together"
            )
        return self


class StatsConfig(Part):
    """Comparison of a cell with its baseline once both are recorded; no recorded figure depends on it."""

    margin: float = Field(default=0.5, gt=0, le=100, description="non-inferiority margin in percentage points of WER")
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000, description="resamples of the bootstrap")
