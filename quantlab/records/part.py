"""A part of a record: frozen, with numbers within bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Records may come from anybody; numbers within these bounds cannot overflow in later computations.
Count = Annotated[int, Field(ge=0, le=2**53)]
Figure = Annotated[float, Field(ge=0, le=1e15)]
Divisor = Annotated[float, Field(ge=1e-9, le=1e15)]  # clocks count nanoseconds
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=1_000_000)]  # of one text; alignment takes time quadratic in its length


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"its lower end {ends[0]:g} is above its upper end {ends[1]:g}")
    return ends


Interval = Annotated[tuple[Figure, Figure], AfterValidator(_ordered)]


class Part(BaseModel):
    # No NaN: JSON has none, so it would be stored as null and the record could not be read again.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)
