"""Configuration of quantization."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from quantlab.config.part import Part, reset
from quantlab.config.types import Backend, Count, FilePath, Method, Name, Names, Target


class QuantConfig(Part):
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
    act_order: bool | None = Field(
        default=None, description="GPTQ: round the inputs with the largest activations first"
    )
    damping: float | None = Field(
        default=None, ge=0, le=10, description="GPTQ: share of the Hessian's mean that is added to its diagonal"
    )
    recover: Literal["scales", "weights", "lora"] | None = Field(
        default=None,
        description="training afterwards on calibration data: scales, zero points, biases, norms; weights too; or LoRA",
    )
    lora_rank: Count = Field(default=8, description="quant.recover=lora: width of the added matrices")
    smoothing: float | None = Field(
        default=None, ge=0, le=1, description="SmoothQuant: 1 makes all ranges of activations equal, 0 those of weights"
    )
    path: FilePath | None = Field(default=None, description="recipe: file with the bits of each module")
    method: Method | None = Field(default=None, description="recipe: how weights are rounded, read from the file")
    modules: dict[str, float | None] = Field(
        default={}, description="recipe: bits by name or glob of modules, read from the file; null: not quantized"
    )
    target: Target = Field(default="all", description="which part of the model is quantized")
    skip: Names = Field(default=(), description="globs over names of modules not to quantize, e.g. '[\"*.k_proj\"]'")
    head: bool = Field(default=False, description="quantize proj_out too")
    embedding: bool = Field(
        default=False, description="quantize the token embedding too, and proj_out, which shares its matrix"
    )

    @property
    def is_calibrated(self) -> bool:
        """Whether calibration data run through the model."""
        return self.scheme == "static" or self.reads_labels

    @property
    def reads_labels(self) -> bool:
        """Whether the decoder is given `calibration.labels`, whose utterances must not be scored."""
        return is_chosen_by_data(self.library, self.method, self.recover)

    @model_validator(mode="after")
    def _reset_inapplicable_keys(self) -> QuantConfig:
        """Reset keys that do not apply, as a sweep sets them for every quantizer: the baseline has none of them.

        Such points are one cell however they are written. Invalid values are still refused, and so are keys that have
        no effect on any cell of a grid (`config.effect`).
        """
        if self.library == NO_QUANTIZATION_LIBRARY:
            object.__setattr__(self, "scheme", "none")
        if self.scheme == "none":
            reset(self, _OF_QUANTIZED)
        elif self.granularity in ("per-tensor", "per-channel"):
            reset(self, {"group_size"})
        if self.library != RECIPE:
            reset(self, {"path"})
        return self


def is_chosen_by_data(library: object, method: object, recover: object) -> bool:
    """Whether calibration data choose or train the weights, by these keys of `quant`."""
    return (method or library) in CALIBRATED or recover is not None


_OF_QUANTIZED = frozenset(QuantConfig.model_fields) - {"name", "library", "scheme"}
NO_QUANTIZATION_LIBRARY = "none"
RECIPE = "recipe"  # quant.library of settings that differ by module
NO_QUANTIZATION = QuantConfig(name="none", library=NO_QUANTIZATION_LIBRARY, scheme="none")
CALIBRATED = ("gptq", "awq", "smoothquant")  # libraries of quantlab that choose weights by calibration data
AS_SHIPPED = "as_shipped"  # quant.library of a quantized file that is measured unchanged
