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
_LOUDEST_DB = 100  # above it one of speech and noise is lost in the 16 bits of a recording


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


def _reset(part: _Part, keys: Iterable[str]) -> None:
    """To the defaults, while it is validated."""
    for key in keys:
        object.__setattr__(part, key, type(part).model_fields[key].default)


def bounds(part: type[_Part], key: str) -> tuple[int, int]:
    """The least and the most of a whole number, both allowed."""
    found = part.model_fields[key].metadata
    least, most = (next(getattr(item, name) for item in found if hasattr(item, name)) for name in ("ge", "le"))
    return int(least), int(most)


class Architecture(_Part):
    """The shape of a Whisper, enough to build it with random weights and no download.

    Source of the shipped values: the `config.json` of each checkpoint on the hub.
    """

    d_model: int = Field(ge=1, le=16_384, description="width of the model")
    encoder_layers: int = Field(ge=1, le=256, description="layers of the encoder")
    decoder_layers: int = Field(ge=1, le=256, description="layers of the decoder")
    attention_heads: int = Field(ge=1, le=1024, description="heads; they share the width")
    ffn_dim: int = Field(ge=1, le=131_072, description="width between the two layers of a feed-forward part")
    num_mel_bins: int = Field(ge=1, le=200, description="mel bins of a frame: 80, or 128 since large-v3")
    vocab_size: int = Field(ge=16, le=MOST, description="tokens, at least nine of them no text")
    max_source_positions: int = Field(
        default=1500, ge=1, le=100_000, description="encoder frames; 1500 = 30 s at 50 frames/s"
    )
    max_target_positions: int = Field(
        default=448, ge=8, le=100_000, description="tokens of a window, four of them the prompt"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Architecture:
        if self.d_model % self.attention_heads:
            raise ValueError(
                f"model.architecture: d_model={self.d_model} is no multiple of attention_heads={self.attention_heads}"
            )
        return self


class ModelConfig(_Part):
    """Which recogniser, and where its weights come from."""

    name: Name = Field(description="what a person calls the checkpoint")
    source: Literal["shipped", "hub"] = Field(description="where it comes from")
    repo: str | None = Field(default=None, description="id on the hub, e.g. openai/whisper-small")
    revision: str | None = Field(default=None, description="pinned commit of model.repo")
    path: FilePath | None = Field(
        default=None,
        description="a local checkpoint of transformers, OpenAI, CTranslate2 or whisper.cpp; wins over the hub",
    )
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random: the architecture alone, for size and speed"
    )
    random_tokens: Count = Field(default=32, description="tokens generated per utterance with random weights")
    architecture: Architecture | None = None

    @property
    def label(self) -> str:
        """What a person calls the checkpoint."""
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
    """A checkpoint by its name; one that takes the place of the model that ships, and has its name, by its folder."""
    folder = PurePath(str(path)).name if path and source == "shipped" and name == SHIPPED else ""
    return folder if folder.isprintable() and folder else name


class QuantConfig(_Part):
    """How the weights (and, for static schemes, the activations) are stored and computed."""

    name: Name = Field(description="what a person calls it")
    library: str = Field(
        description="a file of quantlab/quantization/backends, or an entry point of group quantlab.quantizers"
    )
    bits: float | None = Field(default=None, gt=0, le=32, description="stored bits per weight; 1.58 = ternary")
    format: str | None = Field(default=None, description="of the weights: int8, int4, float8_e4m3fn, nf4, fp4, …")
    scheme: Literal["none", "dynamic", "static", "weight-only"] = Field(
        default="weight-only", description="what is quantized, and when the scales of activations are found"
    )
    activations: str | None = Field(default=None, description="format of the activations, static schemes only")
    granularity: Literal["per-tensor", "per-channel", "per-group"] | None = Field(
        default=None, description="what shares a scale"
    )
    group_size: Count | None = Field(default=None, description="weights that share one scale")
    symmetric: bool | None = Field(default=None, description="without a zero point")
    double_quant: bool = Field(default=False, description="scales quantized once more (bitsandbytes)")
    axis: Literal[0, 1] | None = Field(default=None, description="along which HQQ groups")
    backend: Backend | None = Field(default=None, description="HQQ's kernels; null: the best that is installed")
    target: Target = Field(default="all", description="which half of the model is quantized")
    skip: Names = Field(default=(), description="globs over module names to leave alone, e.g. '[\"*.k_proj\"]'")
    head: bool = Field(default=False, description="quantize proj_out too")
    embedding: bool = Field(
        default=False, description="quantize the token embedding too, with proj_out, as the two are one matrix"
    )

    @model_validator(mode="after")
    def _without_what_does_not_apply(self) -> QuantConfig:
        """A sweep sets its keys everywhere: the baseline has none of them, a scale per channel has no group size.

        However such a point is written, it is the same cell; what is wrong is wrong all the same.
        """
        if self.scheme == "none":
            _reset(self, _OF_QUANTIZED)
        elif self.granularity in ("per-tensor", "per-channel"):
            _reset(self, {"group_size"})
        return self


_OF_QUANTIZED = frozenset(QuantConfig.model_fields) - {"name", "library", "scheme"}
NO_QUANTIZATION = QuantConfig(name="none", library="none", scheme="none")
AS_SHIPPED = "as_shipped"  # quant.library of a file that is measured as it is


class DeviceConfig(_Part):
    name: Literal["cpu", "cuda", "mps", "auto"] = Field(
        default="auto", description="where the model runs; auto: a GPU where there is one"
    )
    threads: int | None = Field(
        default=None, gt=0, le=4096, description="intra-op threads; null: every core this process may use"
    )
    pin: bool = Field(
        default=True, description="keep the process on as many cores as it has threads, where the system can"
    )


class RuntimeConfig(_Part):
    """How the model is run."""

    name: Literal["eager", "compile"] = Field(
        default="eager", description="how the model is run; compile: static cache and torch.compile"
    )
    audio_ctx: AudioContext = Field(
        default="full", description="dynamic: the encoder sees only the frames that hold audio, not the whole window"
    )
    dtype: Dtype = Field(default="float32", description="in which all that is not quantized is stored and computed")


class HubSplit(_Part):
    """Where one of our splits lies in a hub dataset."""

    config: str | None = None
    split: str


class NoiseConfig(_Part):
    """Noise that is mixed into a corpus; `snr_db=inf` is the corpus as it is, so that a sweep can begin with it."""

    kind: Literal["white", "pink", "babble", "recorded"] | None = Field(
        default=None,
        description="noise mixed into every utterance; babble: other utterances of the corpus; needs snr_db",
    )
    snr_db: float | None = Field(
        default=None,
        description="power of the whole utterance / power of the noise, -100 to 100 dB; inf: the corpus as it is",
    )
    path: FilePath | None = Field(default=None, description="folder of noise recordings, kind=recorded")
    seed: Seed = Field(default=0, description="of the noise")

    @model_validator(mode="after")
    def _none_at_infinity(self) -> NoiseConfig:
        """However no noise is written, it is the same cell."""
        if self.snr_db == math.inf:
            _reset(self, type(self).model_fields)
        return self

    @model_validator(mode="after")
    def _is_complete(self) -> NoiseConfig:
        if (self.kind is None) != (self.snr_db is None):
            raise ValueError(
                f"dataset.noise: kind={self.kind}, snr_db={self.snr_db}: set both, e.g. dataset.noise.kind=white "
                "dataset.noise.snr_db=10, or neither; snr_db=inf is the corpus as it is"
            )
        if self.snr_db is not None and not abs(self.snr_db) <= _LOUDEST_DB:
            raise ValueError(
                f"dataset.noise.snr_db={self.snr_db}: a number of dB from -{_LOUDEST_DB} to {_LOUDEST_DB}, "
                "or inf for the corpus as it is"
            )
        if (self.kind == "recorded") != (self.path is not None):
            raise ValueError(
                f"dataset.noise: kind={self.kind}, path={shortened(self.path)}: kind=recorded and "
                "path=<a folder of noise recordings> go together"
            )
        return self


class DatasetConfig(_Part):
    name: Name = Field(description="what a person calls the corpus")
    source: str = Field(
        description="shipped, joined, hub, librispeech_dir, manifest, or an entry point of group quantlab.datasets"
    )
    path: FilePath | None = Field(
        default=None, description="manifest file, corpus folder, or a local clone of the hub repository"
    )
    repo: str | None = Field(default=None, description="id on the hub")
    revision: str | None = Field(default=None, description="pinned commit of dataset.repo")
    hub_splits: dict[str, HubSplit] = Field(
        default_factory=dict,
        description="where each split lies in a hub dataset: {clean: {config: clean, split: test}}",
    )
    audio_column: str = Field(default="audio", description="of a hub dataset")
    text_column: str = Field(default="text", description="of a hub dataset: the references")
    speaker_column: str | None = Field(default=None, description="of a hub dataset, if it has one")
    id_column: str | None = Field(default=None, description="of a hub dataset; null: utterances are numbered")
    splits: SomeNames | None = Field(default=None, description="null: every split the corpus has")
    ignored_columns: Names = Field(
        default=(), description="of a manifest: what is known to change nothing that is heard or scored; globs"
    )
    channel: int | None = Field(
        default=None, ge=0, description="the one that is heard, from 0; null: the average of all"
    )
    limit: Count | None = Field(default=None, description="utterances per split, the first ones in corpus order")
    ids: SomeNames | None = Field(
        default=None, description="these utterances alone, e.g. '[a,b]', in corpus order; null: all"
    )
    language: Language = Field(default="en", description="a code of Whisper's")
    licence: str | None = Field(default=None, description="of the audio and its references, as their owner states it")
    nonspeech: bool = Field(
        default=False, description="decode utterances whose reference has no word, and count the words heard in them"
    )
    unscored: Names = Field(
        default=(), description='references left out, compared once normalised; "" is one of which no word is left'
    )
    noise: NoiseConfig = NoiseConfig()
    long: Literal["chunked", "consecutive", "sequential"] | None = Field(
        default=None, description="what to do with audio longer than the window of the model; null: leave it out"
    )
    chunk_overlap_s: float | None = Field(
        default=None, gt=0, le=3600, description="null: a third of the window; chunked only"
    )

    @property
    def label(self) -> str:
        """What a person calls the corpus as it is heard."""
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
    """A corpus as it is heard: `demo`, or `demo+white10dB`."""
    return name if noise is None else f"{name}+{noise}{snr_db:g}dB"


def cell_label(model: str, quant: object, device: object, dtype: object, noisy: str | None) -> str:
    """A cell by itself: `nano-none-cpu-bfloat16-demo+white10dB`; older records have no type, and are fp32.

    Args:
        model: its label.
        quant: name of the quantizer.
        device: its name.
        dtype: of what is not quantized.
        noisy: the label of a corpus to which noise was added; None for any other.
    """
    stored = "" if dtype in (None, "float32") else f"-{dtype}"
    return f"{model}-{quant}-{device}{stored}{f'-{noisy}' if noisy else ''}"


class ProtocolConfig(_Part):
    """How every cell of a grid is measured."""

    name: Name = Field(description="what a person calls it")
    batch_size: int = Field(default=16, gt=0, le=65_536, description="utterances decoded together")
    warmup_batches: int = Field(default=2, ge=0, le=MOST, description="untimed batches before the first timed one")
    max_new_tokens: Count | None = Field(default=None, description="null: what the model's positions allow")
    num_beams: int = Field(default=1, gt=0, le=128, description="1: greedy")
    fallbacks: bool = Field(
        default=False, description="dataset.long=sequential: a window that went wrong is decoded again, at random"
    )
    condition_on_prev_tokens: bool = Field(
        default=False, description="dataset.long=sequential: each window is told the text before it"
    )
    interleave: bool = Field(
        default=False, description="time the cell in turns with a resident baseline, until rel_ci or budget_s"
    )
    rel_ci: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="width of the ratio's 95 % interval / the ratio at which the timing may end",
    )
    budget_s: Seconds = Field(default=120.0, description="wall seconds for the timing against the baseline")
    forced_tokens: int = Field(default=32, gt=1, le=MOST, description="tokens per utterance where the work is fixed")
    residency: Literal["auto", "together", "alternate"] = Field(
        default="auto", description="both models in one process, or one at a time"
    )


class CalibrationConfig(_Part):
    """Static schemes only; the study calibrates on a random 10 % of the evaluation data (arXiv 2511.08093)."""

    fraction: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of the utterances that static schemes calibrate on, chosen at random from the seed",
    )
    source: Literal["eval", "disjoint"] = Field(
        default="eval",
        description="eval: those that are scored too, as in the study; disjoint: they are kept out of every score",
    )


class StatsConfig(_Part):
    """How a cell is compared with its baseline, once both are recorded; no figure of a record depends on it."""

    margin: float = Field(
        default=0.5, gt=0, le=100, description="percentage points of WER that do not matter (non-inferiority)"
    )
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000, description="of the bootstrap")


class TrackingConfig(_Part):
    name: Literal["local", "server", "off"] = Field(
        default="local", description="where MLflow is: below output_dir, on a server, or nowhere"
    )
    uri: ServerAddress | None = Field(default=None, description="of the MLflow server, http://HOST:PORT")
    experiment: str = Field(default="quantlab", min_length=1, description="of MLflow")

    @model_validator(mode="after")
    def _server_has_uri(self) -> TrackingConfig:
        if self.name == "server" and self.uri is None:
            raise ValueError("tracking=server needs tracking.uri=http://HOST:PORT")
        return self


class ExportConfig(_Part):
    """Where the quantized model itself is left, once it is proven and measured."""

    dir: FilePath | None = Field(
        default=None,
        description="gets a folder for each cell with its quantized model, to be loaded again; null: no model is kept",
    )


class BaselineConfig(_Part):
    """quant=as_shipped only: nobody can tell from a quantized file what it was made of."""

    path: FilePath | None = Field(
        default=None,
        description="quant=as_shipped: the checkpoint before quantization, as model.path takes it",
    )


class RunConfig(_Part):
    """One cell: everything `run_cell` needs, and nothing it does not."""

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
    seed: Seed = Field(default=0, description="of everything random: calibration, random weights")
    isolate: bool = Field(
        default=True, description="each cell in a process of its own; false to step through it in a debugger"
    )
    timeout_s: Seconds = Field(default=3600.0, description="seconds for a whole cell; not kept with isolate=false")
    resume: bool = Field(default=True, description="a cell that is recorded already is not measured again")
    output_dir: FilePath = Field(default="mlruns", description="records, MLflow database and artifacts")

    @model_validator(mode="after")
    def _baseline_is_of_a_file_as_shipped(self) -> RunConfig:
        """In a sweep `quant=none,as_shipped` the path stands at both: unquantized, it is the model itself."""
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
        """The cell that this one is compared with: no quantization, everything else equal."""
        path = self.baseline.path or self.model.path
        update = {"quant": NO_QUANTIZATION, "model": self.model.model_copy(update={"path": path})}
        return self.model_copy(update=update | {"baseline": BaselineConfig()})

    @property
    def label(self) -> str:
        """What a person calls the cell by itself, e.g. `nano-hqq_int4-cpu`; its type, where that is not fp32, and the
        corpus, where noise was added to it. In a list of cells `quantlab.records.labels` tells more.
        """
        noisy = self.dataset.label if self.dataset.noise.kind else None
        return cell_label(self.model.label, self.quant.name, self.device.name, self.runtime.dtype, noisy)

    @property
    def axes(self) -> str:
        """What `only` chooses by: model, quantizer and device."""
        return f"{self.model.name}-{self.quant.name}-{self.device.name}"
