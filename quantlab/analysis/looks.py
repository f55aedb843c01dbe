"""Comparison of a cell with its baseline while it is measured, and again when its record is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from quantlab.analysis.pairs import Scores
from quantlab.records.schema import Adaptive, Look
from quantlab.stats.estimate import Estimate
from quantlab.stats.sequential import Design, Looks, examine, repeated_p, seen

Key = tuple[str, str]  # split and id of an utterance


class Scored(Protocol):
    """A scored utterance."""

    @property
    def split(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def errors(self) -> int | None: ...


@dataclass(frozen=True)
class Opponent:
    """The baseline of a cell, measured on the whole corpus, and how the two are compared."""

    cell_id: str
    scores: Scores
    design: Design

    @cached_property
    def words(self) -> int:
        """Reference words of the corpus."""
        return sum(self.scores.sample.words)

    @cached_property
    def _position(self) -> Mapping[Key, int]:
        sample = self.scores.sample
        return {key: index for index, key in enumerate(zip(sample.splits, sample.ids, strict=True))}

    def knows(self, item: Scored) -> bool:
        """Whether the utterance is compared: it has words in its reference."""
        return (item.split, item.id) in self._position

    def looks(self, utterances: Sequence[Scored], sizes: Sequence[int]) -> list[Look]:
        """Compare the first so many of the utterances, for each of `sizes` (increasing)."""
        tested = self._tested(utterances, sizes)
        return [
            Look(
                utterances=size,
                words=int(words),
                difference=float(tested.looks.difference[look]),
                low=_finite(tested.looks.low[look]),
                high=_finite(tested.looks.high[look]),
                z=float(tested.looks.z[look]),
                bound=float(tested.looks.bound[look]),
                verdict=tested.looks.verdict(look),
            )
            for look, (size, words) in enumerate(zip(sizes, tested.words, strict=True))
        ]

    def _tested(self, utterances: Sequence[Scored], sizes: Sequence[int]) -> _Tested:
        sample = self.scores.sample
        chosen = np.array([self._position[item.split, item.id] for item in utterances])
        errors = np.array([item.errors for item in utterances])
        units = sample.units.of_utterance[chosen] if sample.units.kind == "speaker" else None
        found = seen(errors - self.scores.counts.words[chosen], np.array(sample.words)[chosen], units, sizes)
        return _Tested(found.words, examine(found, found.words / self.words, self.design))


class _Tested(NamedTuple):
    words: npt.NDArray[np.float64]
    looks: Looks


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def design_of(adaptive: Adaptive) -> Design:
    """The design that a cell was measured with."""
    return Design(adaptive.margin, adaptive.cells, adaptive.spending, adaptive.spending_tied)


def difference(adaptive: Adaptive) -> Estimate:
    """The difference in WER from the baseline at the last look, with its repeated interval."""
    last = adaptive.looks[-1]
    return Estimate(last.difference, None if last.low is None or last.high is None else (last.low, last.high))


def p_value(adaptive: Adaptive) -> float:
    """Repeated two-sided p-value of no difference in WER at the last look."""
    z, information = zip(*((look.z, look.words / adaptive.words) for look in adaptive.looks), strict=True)
    return float(repeated_p(z, information, design_of(adaptive))[-1])

