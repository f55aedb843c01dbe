"""Configuration schema: one strict, frozen model per concept, each with its subject's module; here the whole cell.

Nothing here reads a file, imports torch or sets an environment variable. The YAML in `conf/` mirrors these
models key by key; a notebook builds them directly.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from quantlab.config.dataset import DatasetConfig, HubSplit, NoiseConfig, corpus_label
from quantlab.config.measurement import CalibrationConfig, DeviceConfig, ProtocolConfig, RuntimeConfig, StatsConfig
from quantlab.config.model import SHIPPED, Architecture, ModelConfig, model_label
from quantlab.config.part import Part, bounds
from quantlab.config.quant import AS_SHIPPED, NO_QUANTIZATION, QuantConfig
from quantlab.config.recovery import RecoveryConfig
from quantlab.config.streaming import StreamingConfig
from quantlab.config.types import FilePath, Jobs, Seconds, Seed, ServerAddress
from quantlab.util.errors import shortened

__all__ = [
    "AS_SHIPPED",
    "NO_QUANTIZATION",
    "SHIPPED",
    "Architecture",
    "BaselineConfig",
    "CalibrationConfig",
    "DatasetConfig",
    "DeviceConfig",
    "ExportConfig",
    "HubSplit",
    "ModelConfig",
    "NoiseConfig",
    "ProtocolConfig",
    "QuantConfig",
    "RecoveryConfig",
    "RunConfig",
    "RuntimeConfig",
    "StatsConfig",
    "StreamingConfig",
    "TrackingConfig",
    "bounds",
    "cell_label",
    "corpus_label",
    "model_label",
]


class TrackingConfig(Part):
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


class ExportConfig(Part):
    """Export of the quantized model after verification and measurement."""

    dir: FilePath | None = Field(
        default=None,
        description="folder for the quantized models, one loadable folder per cell; null: models are not kept",
    )


class BaselineConfig(Part):
    """Baseline for quant=as_shipped, since a quantized file does not name the checkpoint it was made from."""

    path: FilePath | None = Field(
        default=None,
        description="quant=as_shipped: the checkpoint before quantization, in the form of model.path",
    )


class RunConfig(Part):
    """Configuration of one cell: everything that `run_cell` needs."""

    model: ModelConfig
    quant: QuantConfig
    device: DeviceConfig
    runtime: RuntimeConfig
    dataset: DatasetConfig
    protocol: ProtocolConfig
    calibration: CalibrationConfig
    recovery: RecoveryConfig = RecoveryConfig()
    tracking: TrackingConfig
    stats: StatsConfig = StatsConfig()
    export: ExportConfig = ExportConfig()
    baseline: BaselineConfig = BaselineConfig()
    seed: Seed = Field(default=0, description="seed of calibration and random weights")
    jobs: Jobs = Field(
        default=1,
        description="cells side by side on this machine, each with cores of its own and, on CUDA, a GPU; auto: one for "
        "each GPU, or as many as the cores allow by device.threads",
    )
    isolate: bool = Field(default=True, description="run each cell in its own process; false: for debugging")
    timeout_s: Seconds = Field(default=3600.0, description="time limit of a cell, s; ignored with isolate=false")
    resume: bool = Field(default=True, description="skip cells that are already recorded")
    output_dir: FilePath = Field(default="mlruns", description="records, MLflow database and artifacts")

    @model_validator(mode="after")
    def _baseline_needs_as_shipped(self) -> RunConfig:
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

    @model_validator(mode="after")
    def _is_not_scored_on_calibration_data(self) -> RunConfig:
        if self.quant.reads_labels and self.calibration.source == "eval":
            how = f" with quant.recover={self.quant.recover}" if self.quant.recover else ""
            raise ValueError(
                f"quant={self.quant.name}{how} would be scored on the utterances that it was calibrated with: set "
                "calibration.source=disjoint, or calibration.source=manifest calibration.path=FILE"
            )
        return self

    @model_validator(mode="after")
    def _recovers_in_fp32(self) -> RunConfig:
        if self.quant.recover is not None and self.runtime.dtype != "float32":
            raise ValueError(f"quant.recover={self.quant.recover} trains in fp32: set runtime.dtype=float32")
        return self

    @model_validator(mode="after")
    def _times_words_of_one_window(self) -> RunConfig:
        if self.runtime.word_times and self.dataset.long is not None:
            raise ValueError(
                f"runtime.word_times=true times the words of one window, not of several (dataset.long="
                f"{self.dataset.long}): set dataset.long=null, or leave runtime.word_times=false"
            )
        return self

    @model_validator(mode="after")
    def _streams_one_utterance_at_a_time(self) -> RunConfig:
        policy = self.runtime.streaming.policy
        if policy is None:
            return self
        if self.protocol.batch_size != 1:
            raise ValueError(
                f"runtime.streaming.policy={policy} decodes one utterance at a time: set protocol.batch_size=1, not "
                f"{self.protocol.batch_size}"
            )
        if self.dataset.long is not None:
            raise ValueError(
                f"runtime.streaming.policy={policy} streams utterances that fit the model's window: leave "
                f"dataset.long=null, not {self.dataset.long}"
            )
        if self.model.weights == "random":
            raise ValueError(
                f"runtime.streaming.policy={policy} needs words, and random weights output none: set "
                "model.weights=pretrained"
            )
        return self

    @model_validator(mode="after")
    def _side_by_side_in_processes(self) -> RunConfig:
        if self.jobs != 1 and not self.isolate:
            raise ValueError(f"jobs={self.jobs}: isolate=false measures in this process, in turn: leave one out")
        if self.jobs != 1 and not self.device.pin:
            raise ValueError(f"jobs={self.jobs}: each cell is pinned to cores of its own: leave device.pin=true")
        return self

    @property
    def calibration_dataset(self) -> DatasetConfig | None:
        """The corpus of `calibration.source=manifest`; None where evaluated utterances calibrate, or none do."""
        if self.calibration.source != "manifest" or not self.quant.is_calibrated:
            return None
        return DatasetConfig(
            name="calibration",
            source="manifest",
            path=self.calibration.path,
            language=self.dataset.language,
            nonspeech=True,  # audio without text calibrates too
        )

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
