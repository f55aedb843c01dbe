"""Configuration of the training after quantization."""

from __future__ import annotations

from pydantic import Field

from quantlab.config.part import Part
from quantlab.config.types import Count


class RecoveryConfig(Part):
    """Training of a quantized model on the calibration data, with `quant.recover`."""

    steps: Count = Field(default=200, description="at most; training stops earlier once the held-out loss has settled")
    batch_size: Count = Field(default=8, description="utterances per step")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="the highest, as a share of the root mean square of each trained tensor"
    )
    held_out: float = Field(
        default=0.125, gt=0, lt=1, description="share of the calibration utterances that decides when to stop"
    )
    patience: Count = Field(default=6, description="checks, of 20 in all, without a better held-out loss that end it")
