"""Configuration schema: one strict, frozen model per concept.

Nothing here reads a file, imports torch or sets an environment variable. The YAML in `conf/` mirrors these
models key by key; a notebook builds them directly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quantlab.config.types import (
    MOST,
    AudioContext,
    Backend,
    Count,
    Dtype,
    FilePath,
    Language,
    Name,
    Names,
    Seconds,
    Seed,
    ServerAddress,
    SomeNames,
    Target,
)
from quantlab.util.errors import shortened

SHIPPED = "nano"  # the model that comes with quantlab
_LOUDEST_DB = 100  # beyond it, speech or noise falls below the 16-bit resolution of a recording


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def _reset(part: _Part, keys: Iterable[str]) -> None:
    """Set keys to their defaults during validation."""
    for key in keys:
        object.__setattr__(part, key, type(part).model_fields[key].default)


def bounds(part: type[_Part], key: str) -> tuple[int, int]:
    """The smallest and largest allowed value of an integer key."""
    found = part.model_fields[key].metadata
    least, most = (next(getattr(item, name) for item in found if hasattr(item, name)) for name in ("ge", "le"))
    return int(least), int(most)


class Architecture(_Part):
    """The shape of a Whisper model: enough to build it with random weights and no download.

    Source of the shipped values: the `config.json` of each checkpoint on the hub.
    """

    d_model: int = Field(ge=1, le=16_384, description="width of the model")
    encoder_layers: int = Field(ge=1, le=256, description="layers of the encoder")
    decoder_layers: int = Field(ge=1, le=256, description="layers of the decoder")
    attention_heads: int = Field(ge=1, le=1024, description="attention heads; d_model must be a multiple")
    ffn_dim: int = Field(ge=1, le=131_072, description="hidden width of the feed-forward blocks")
    num_mel_bins: int = Field(ge=1, le=200, description="mel bins per frame: 80, or 128 since large-v3")
    vocab_size: int = Field(ge=16, le=MOST, description="vocabulary size, including at least nine special tokens")
    max_source_positions: int = Field(
        default=1500, ge=1, le=100_000, description="encoder frames; 1500 = 30 s at 50 frames/s"
    )
    max_target_positions: int = Field(
        default=448, ge=8, le=100_000, description="decoder positions per window, four of them for the prompt"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Architecture:
        if self.d_model % self.attention_heads:
            raise ValueError(
                f"model.architecture: d_model={self.d_model} is no multiple of attention_heads={self.attention_heads}"
            )
        return self


class ModelConfig(_Part):
    """The model: its checkpoint and where the weights come from."""

    name: Name = Field(description="display name of the checkpoint")
    source: Literal["shipped", "hub"] = Field(description="where the checkpoint comes from")
    repo: str | None = Field(default=None, description="repository on the hub, e.g. openai/whisper-small")
    revision: str | None = Field(default=None, description="pinned commit of model.repo")
    path: FilePath | None = Field(
        default=None,
        description="local checkpoint (transformers, OpenAI, CTranslate2 or whisper.cpp); used instead of the hub",
    )
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random: random weights of the same shape, for size and speed"
    )
    random_tokens: Count = Field(default=32, description="tokens generated per utterance with random weights")
    architecture: Architecture | None = None

    @property
    def label(self) -> str:
        """Display name of the checkpoint."""
        return model_label(self.name, self.source, self.path)

    @model_validator(mode="after")
    def _has_weights_somewhere(self) -> ModelConfig:
        if self.source == "shipped" and self.repo is not None:
            raise ValueError(
                f"model.repo={shortened(self.repo)}: {self.name} ships with quantlab; for the hub: model=base "
                "model.repo=OWNER/NAME model.revision=null"
            )
        if self.source == "hub" and self.path is None and self.weights == "pretrained" and not self.repo:
            raise ValueError(f"model {self.name!r} names no hub repo: set model.repo, or model.path=FOLDER")
        return self


def model_label(name: str, source: object, path: object) -> str:
    """Display name of a checkpoint: its name, or its folder if `model.path` replaces the shipped model."""
    folder = PurePath(str(path)).name if path and source == "shipped" and name == SHIPPED else ""
    return folder if folder.isprintable() and folder else name


class QuantConfig(_Part):
    """Quantization of the weights and, for static schemes, the activations."""

    name: Name = Field(description="display name")
    library: str = Field(
        description="module of quantlab/quantization/backends, or entry point of group quantlab.quantizers"
    )
    bits: float | None = Field(default=None, gt=0, le=32, description="stored bits per weight; 1.58 = ternary")
    format: str | None = Field(default=None, description="weight format: int8, int4, float8_e4m3fn, nf4, fp4, …")
    scheme: Literal["none", "dynamic", "static", "weight-only"] = Field(
        default="weight-only", description="what is quantized, and when activation scales are computed"
    )
    activations: str | None = Field(default=None, description="format of the activations, static schemes only")
    granularity: Literal["per-tensor", "per-channel", "per-group"] | None = Field(
        default=None, description="the weights that share one scale"
    )
    group_size: Count | None = Field(default=None, description="weights per scale")
    symmetric: bool | None = Field(default=None, description="true: without a zero point")
    double_quant: bool = Field(default=False, description="quantize the scales as well (bitsandbytes)")
    axis: Literal[0, 1] | None = Field(default=None, description="axis along which HQQ groups weights")
    backend: Backend | None = Field(default=None, description="HQQ's kernels; null: the best installed")
    target: Target = Field(default="all", description="which part of the model is quantized")
    skip: Names = Field(default=(), description="globs over names of modules not to quantize, e.g. '[\"*.k_proj\"]'")
    head: bool = Field(default=False, description="quantize proj_out too")
    embedding: bool = Field(
        default=False, description="quantize the token embedding too, and proj_out, which shares its matrix"
    )

    @model_validator(mode="after")
    def _without_what_does_not_apply(self) -> QuantConfig:
        """Reset keys that do not apply, as a sweep sets them for every quantizer: the baseline has none of them.

        Such points are one cell however they are written. Invalid values are still refused.
        """
        if self.scheme == "none":
            _reset(self, _OF_QUANTIZED)
        elif self.granularity in ("per-tensor", "per-channel"):
            _reset(self, {"group_size"})
        return self


_OF_QUANTIZED = frozenset(QuantConfig.model_fields) - {"name", "library", "scheme"}
NO_QUANTIZATION = QuantConfig(name="none", library="none", scheme="none")
AS_SHIPPED = "as_shipped"  # quant.library of a quantized file that is measured unchanged


class DeviceConfig(_Part):
    name: Literal["cpu", "cuda", "mps", "auto"] = Field(
        default="auto", description="where the model runs; auto: a GPU if there is one"
    )
    threads: int | None = Field(
        default=None, gt=0, le=4096, description="intra-op threads; null: every core this process may use"
    )
    pin: bool = Field(
        default=True, description="pin the process to as many cores as it has threads, if the system supports it"
    )


class RuntimeConfig(_Part):
    """The runtime that executes the model."""

    name: Literal["eager", "compile"] = Field(
        default="eager", description="eager, or compile: static cache and torch.compile"
    )
    audio_ctx: AudioContext = Field(
        default="full", description="dynamic: the encoder gets only the frames with audio, not the whole window"
    )
    dtype: Dtype = Field(default="float32", description="storage and compute dtype of everything that is not quantized")


class HubSplit(_Part):
    """Location of one split in a hub dataset."""

    config: str | None = None
    split: str


class NoiseConfig(_Part):
    """Noise mixed into a corpus; `snr_db=inf` is the unchanged corpus, so that a sweep can start with it."""

    kind: Literal["white", "pink", "babble", "recorded"] | None = Field(
        default=None,
        description="noise mixed into every utterance; babble: other utterances of the corpus; needs snr_db",
    )
    snr_db: float | None = Field(
        default=None,
        description="power of the whole utterance / power of the noise, -100 to 100 dB; inf: no noise",
    )
    path: FilePath | None = Field(default=None, description="folder of noise recordings, kind=recorded")
    seed: Seed = Field(default=0, description="seed of the noise")

    @model_validator(mode="after")
    def _none_at_infinity(self) -> NoiseConfig:
        """Reset all keys where there is no noise, so that every spelling of it is one cell."""
        if self.snr_db == math.inf:
            _reset(self, type(self).model_fields)
        return self

    @model_validator(mode="after")
    def _is_complete(self) -> NoiseConfig:
        if (self.kind is None) != (self.snr_db is None):
            raise ValueError(
                f"dataset.noise: kind={self.kind}, snr_db={self.snr_db}: set both, e.g. dataset.noise.kind=white "
                "dataset.noise.snr_db=10, or neither; snr_db=inf is the corpus without noise"
            )
        if self.snr_db is not None and not abs(self.snr_db) <= _LOUDEST_DB:
            raise ValueError(
                f"dataset.noise.snr_db={self.snr_db}: a number of dB from -{_LOUDEST_DB} to {_LOUDEST_DB}, "
                "or inf for the corpus without noise"
            )
        if (self.kind == "recorded") != (self.path is not None):
            raise ValueError(
                f"dataset.noise: kind={self.kind}, path={shortened(self.path)}: kind=recorded and "
                "path=<a folder of noise recordings> go together"
            )
        return self


class DatasetConfig(_Part):
    name: Name = Field(description="display name of the corpus")
    source: str = Field(
        description="shipped, joined, hub, librispeech_dir, manifest, or an entry point of group quantlab.datasets"
    )
    path: FilePath | None = Field(
        default=None, description="manifest file, corpus folder, or local clone of the hub repository"
    )
    repo: str | None = Field(default=None, description="repository on the hub")
    revision: str | None = Field(default=None, description="pinned commit of dataset.repo")
    hub_splits: dict[str, HubSplit] = Field(
        default_factory=dict,
        description="location of each split in a hub dataset: {clean: {config: clean, split: test}}",
    )
    audio_column: str = Field(default="audio", description="hub dataset: column of the audio")
    text_column: str = Field(default="text", description="hub dataset: column of the references")
    speaker_column: str | None = Field(default=None, description="hub dataset: column of the speaker, if any")
    id_column: str | None = Field(default=None, description="hub dataset: column of the id; null: numbered")
    splits: SomeNames | None = Field(default=None, description="null: every split of the corpus")
    ignored_columns: Names = Field(
        default=(), description="manifest: keys known not to affect audio or references, as globs"
    )
    channel: int | None = Field(
        default=None, ge=0, description="audio channel to decode, from 0; null: the average of all"
    )
    limit: Count | None = Field(default=None, description="utterances per split, the first ones in corpus order")
    ids: SomeNames | None = Field(
        default=None, description="only these utterances, e.g. '[a,b]', in corpus order; null: all"
    )
    language: Language = Field(default="en", description="Whisper's language code")
    licence: str | None = Field(default=None, description="licence of audio and references, as stated by the owner")
    nonspeech: bool = Field(
        default=False, description="decode utterances whose reference has no words, and count the words of the output"
    )
    unscored: Names = Field(
        default=(), description='references to skip, compared after normalisation; "" matches a reference without words'
    )
    noise: NoiseConfig = NoiseConfig()
    long: Literal["chunked", "consecutive", "sequential"] | None = Field(
        default=None, description="how to decode audio longer than the model's window; null: skip it"
    )
    chunk_overlap_s: float | None = Field(
        default=None, gt=0, le=3600, description="chunked: seconds that windows overlap; null: a third of the window"
    )

    @property
    def label(self) -> str:
        """Display name of the corpus, including noise."""
        return corpus_label(self.name, self.noise.kind, self.noise.snr_db)

    @model_validator(mode="after")
    def _is_somewhere(self) -> DatasetConfig:
        if self.source == "shipped" and self.path is not None:
            raise ValueError(
                f"dataset.path={shortened(self.path)}: {self.name} ships with quantlab and has no path; "
                "dataset=manifest takes one"
            )
        if self.source in ("librispeech_dir", "manifest") and not self.path:
            what = "manifest" if self.source == "manifest" else "folder that holds test-clean/ and test-other/"
            raise ValueError(f"dataset {self.name!r} needs dataset.path=<the {what}>")
        return self


def corpus_label(name: str, noise: str | None, snr_db: float | None) -> str:
    """Display name of a corpus, including noise: `demo`, or `demo+white10dB`."""
    return name if noise is None else f"{name}+{noise}{snr_db:g}dB"


def cell_label(model: str, quant: object, device: object, dtype: object, noisy: str | None) -> str:
    """Label of a single cell: `nano-none-cpu-bfloat16-demo+white10dB`; older records have no dtype and are fp32.

    Args:
        model: label of the model.
        quant: name of the quantizer.
        device: name of the device.
        dtype: dtype of everything that is not quantized.
        noisy: label of a corpus with added noise; None for any other.
    """
    stored = "" if dtype in (None, "float32") else f"-{dtype}"
    return f"{model}-{quant}-{device}{stored}{f'-{noisy}' if noisy else ''}"


class ProtocolConfig(_Part):
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


class CalibrationConfig(_Part):
    """Calibration of static schemes; the study uses a random 10 % of the evaluation data (arXiv 2511.08093)."""

    fraction: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of the utterances used for calibration of static schemes, drawn with the seed",
    )
    source: Literal["eval", "disjoint"] = Field(
        default="eval",
        description="eval: these utterances are scored too, as in the study; disjoint: they are excluded from scoring",
    )


class StatsConfig(_Part):
    """Comparison of a cell with its baseline once both are recorded; no recorded figure depends on it."""

    margin: float = Field(default=0.5, gt=0, le=100, description="non-inferiority margin in percentage points of WER")
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000, description="resamples of the bootstrap")


class TrackingConfig(_Part):
    name: Literal["local", "server", "off"] = Field(
        default="local", description="MLflow store: below output_dir, on a server, or none"
    )
    uri: ServerAddress | None = Field(default=None, description="address of the MLflow server, http://HOST:PORT")
    experiment: str = Field(default="quantlab", min_length=1, description="of MLflow")

    @model_validator(mode="after")
    def _server_has_uri(self) -> TrackingConfig:
        if self.name == "server" and self.uri is None:
            raise ValueError("tracking=server needs tracking.uri=http://HOST:PORT")
        return self


class ExportConfig(_Part):
    """Export of the quantized model after verification and measurement."""

    dir: FilePath | None = Field(
        default=None,
        description="folder for the quantized models, one loadable folder per cell; null: models are not kept",
    )


class BaselineConfig(_Part):
    """Baseline for quant=as_shipped, since a quantized file does not name the checkpoint it was made from."""

    path: FilePath | None = Field(
        default=None,
        description="quant=as_shipped: the checkpoint before quantization, in the form of model.path",
    )


class RunConfig(_Part):
    """Configuration of one cell: everything that `run_cell` needs."""

    model: ModelConfig
    quant: QuantConfig
    device: DeviceConfig
    runtime: RuntimeConfig
    dataset: DatasetConfig
    protocol: ProtocolConfig
    calibration: CalibrationConfig
    tracking: TrackingConfig
    stats: StatsConfig = StatsConfig()
    export: ExportConfig = ExportConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: Seed = Field(default=0, description="seed of calibration and random weights")
    isolate: bool = Field(default=True, description="run each cell in its own process; false: for debugging")
    timeout_s: Seconds = Field(default=3600.0, description="time limit of a cell, s; ignored with isolate=false")
    resume: bool = Field(default=True, description="skip cells that are already recorded")
    output_dir: FilePath = Field(default="mlruns", description="records, MLflow database and artifacts")

    @model_validator(mode="after")
    def _baseline_is_of_a_file_as_shipped(self) -> RunConfig:
        """baseline.path needs quant=as_shipped; a sweep `quant=none,as_shipped` sets it for both."""
        if self.baseline.path is None or self.quant.library == AS_SHIPPED:
            return self
        if self.quant.library != NO_QUANTIZATION.library:
            raise ValueError(
                f"baseline.path={shortened(self.baseline.path)}: quant={self.quant.name} quantizes the model itself, "
                f"which is its baseline: leave it out, or set quant={AS_SHIPPED}"
            )
        found = self.of_baseline()
        for key in ("model", "baseline"):
            object.__setattr__(self, key, getattr(found, key))
        return self

    def of_baseline(self) -> RunConfig:
        """The baseline cell: no quantization, everything else equal."""
        path = self.baseline.path or self.model.path
        update = {"quant": NO_QUANTIZATION, "model": self.model.model_copy(update={"path": path})}
        return self.model_copy(update=update | {"baseline": BaselineConfig()})

    @property
    def label(self) -> str:
        """Label of the cell, e.g. `nano-hqq_int4-cpu`, with the dtype if not fp32 and the corpus if noise was added.

        For a list of cells use `quantlab.records.labels`, which tells cells apart that this does not.
        """
        noisy = self.dataset.label if self.dataset.noise.kind else None
        return cell_label(self.model.label, self.quant.name, self.device.name, self.runtime.dtype, noisy)

    @property
    def axes(self) -> str:
        """The name that `only` matches: model, quantizer and device."""
        return f"{self.model.name}-{self.quant.name}-{self.device.name}"
