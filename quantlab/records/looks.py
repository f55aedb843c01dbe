"""Looks at a cell that may stop early (`protocol.looks`): what was seen at each, and where it stopped."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from quantlab.records.part import Count, Figure, Part
from quantlab.stats.paired import Verdict
from quantlab.stats.sequential import Stops
from quantlab.stats.spending import Spending

Signed = Annotated[float, Field(ge=-1e15, le=1e15)]


class Look(Part):
    """The paired test after so many utterances; see `stats.sequential`."""

    utterances: Annotated[Count, Field(gt=0)]  # with words in their references
    words: Annotated[Count, Field(gt=0)]  # of their references
    difference: Signed  # WER − the baseline's on these utterances, fraction
    low: Signed | None  # repeated 95 % interval of the difference; null: too few units
    high: Signed | None
    z: Signed  # of no difference
    bound: Figure  # |z| at which the cell is worse or better, if that is asked
    verdict: Verdict | None  # the boundary that was crossed; null: the cell goes on


class Adaptive(Part):
    """How much of the corpus a cell used, and why it stopped there."""

    baseline: str  # cell id
    used: Annotated[Count, Field(gt=0)]  # utterances
    available: Annotated[Count, Field(gt=0)]
    words: Annotated[Count, Field(gt=0)]  # of the references of the whole corpus
    cells: Annotated[Count, Field(gt=0)]  # of the grid that are compared, among which the error is divided
    margin: Annotated[Figure, Field(gt=0, le=1)]
    spending: Spending  # of worse and better
    spending_tied: Spending
    stops: Stops = "verdict"
    looks: Annotated[tuple[Look, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_in_order(self) -> Adaptive:
        sizes, words = [item.utterances for item in self.looks], [item.words for item in self.looks]
        if any(some != sorted(set(some)) for some in (sizes, words)):
            raise ValueError("adaptive: looks that do not grow")
        if words[-1] > self.words or sizes[-1] > self.used or self.used > self.available:
            raise ValueError("adaptive: more than the corpus has")
        if any(item.verdict for item in self.looks[:-1]):
            raise ValueError("adaptive: looks after the one that stopped the cell")
        return self

    @property
    def stopped_by(self) -> Verdict | None:
        """The verdict at the last look; None if no question was answered by then."""
        return self.looks[-1].verdict

    @property
    def stopped_early(self) -> bool:
        """Whether utterances were left out."""
        return self.used < self.available
