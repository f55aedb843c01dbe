"""Configuration of `quantlab allocate`, apart from the keys that it shares with a grid."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from quantlab.config.part import Part
from quantlab.config.types import Count, FilePath, Method

Sensitivity = Literal["gradient", "kl"]


class AllocateConfig(Part):
    """What the recipe has to fulfil, and how it is found."""

    budget_mb: float | None = Field(
        default=None, gt=0, description="size of the whole model at most, as in the table; MB = 10^6 bytes"
    )
    bits_per_weight: float | None = Field(
        default=None, gt=0, le=32, description="or bytes of the recipe's modules per parameter, × 8; scales included"
    )
    sensitivity: Sensitivity = Field(
        default="gradient",
        description="loss of a module in few bits: gradient estimates it by one backward pass, kl measures it",
    )
    method: Method = Field(default="gptq", description="how the recipe's weights are rounded")
    group_size: Count = Field(default=64, description="weights per scale")
    out: FilePath = Field(default="recipe.yaml", description="file to write; it must not exist")

    @model_validator(mode="after")
    def _has_one_budget(self) -> AllocateConfig:
        if (self.budget_mb is None) == (self.bits_per_weight is None):
            raise ValueError("set budget_mb=MB, or bits_per_weight=BITS: one of the two")
        return self
