"""Comparison of a cell with its baseline while it is measured, and again when its record is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantlab.analysis.pairs import Scores, Warn
from quantlab.records.schema import Adaptive, Look, Record, Utterance
from quantlab.stats.estimate import Estimate
from quantlab.stats.sequential import Design, Looks, examine, repeated_p, seen

Key = tuple[str, str]  # split and id of an utterance


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

    def knows(self, utterance: Key) -> bool:
        """Whether the utterance is compared: it has words in its reference."""
        return utterance in self._position

    def looks(self, utterances: Sequence[Key], errors: npt.ArrayLike, sizes: Sequence[int]) -> tuple[Look, ...]:
        """Compare the first so many utterances, for each of `sizes`.

        Args:
            utterances: in the order in which they were measured; the baseline has them all.
            errors: of the cell in each of them.
            sizes: increasing.
        """
        words, looks = self._tested(utterances, np.asarray(errors), sizes)
        return tuple(
            Look(
                utterances=size,
                words=int(words[number]),
                difference=float(looks.difference[number]),
                low=_finite(looks.low[number]),
                high=_finite(looks.high[number]),
                z=float(looks.z[number]),
                bound=float(looks.bound[number]),
                verdict=looks.verdict(number),
            )
            for number, size in enumerate(sizes)
        )

    def _tested(
        self, utterances: Sequence[Key], errors: npt.NDArray[np.integer], sizes: Sequence[int]
    ) -> tuple[npt.NDArray[np.float64], Looks]:
        sample = self.scores.sample
        chosen = np.array([self._position[key] for key in utterances])
        units = sample.units.of_utterance[chosen] if sample.units.kind == "speaker" else None
        found = seen(errors - self.scores.counts.words[chosen], np.array(sample.words)[chosen], units, sizes)
        return found.words, examine(found, found.words / self.words, self.design)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def look(opponent: Opponent, utterances: Sequence[Utterance], before: Adaptive | None, available: int) -> Adaptive:
    """Look at a cell once more.

    Args:
        opponent: what it is compared with.
        utterances: all measured so far.
        before: what the looks before have shown.
        available: number of utterances of the corpus.
    """
    tested = [item for item in utterances if opponent.knows((item.split, item.id))]
    keys, errors = [(item.split, item.id) for item in tested], [item.errors or 0 for item in tested]
    sizes = [*(item.utterances for item in before.looks), len(tested)] if before else [len(tested)]
    design = opponent.design
    return Adaptive(
        baseline=opponent.cell_id,
        used=len(utterances),
        available=available,
        words=opponent.words,
        cells=design.cells,
        margin=design.margin,
        spending=design.spending,
        spending_tied=design.spending_tied,
        stops=design.stops,
        looks=opponent.looks(keys, errors, sizes),
    )


class Again(NamedTuple):
    """What records tell of cells that might stop early."""

    adaptive: dict[str, Adaptive]  # by cell id, with looks computed again, of cells compared with their own baseline
    stopped: set[str]  # cells that left out a part of the corpus
    refused: set[str]  # cells that have no valid comparison, as it or the reference stopped by another one


def again_of(
    records: Sequence[Record], scores: Mapping[str, Scores], references: Mapping[str, str], warn: Warn
) -> Again:
    """Compute all looks of records again; `warn` is called for cells that cannot be compared.

    Args:
        records: the cells.
        scores: counts by cell id.
        references: cell id → id of the cell to compare with.
        warn: called with a line.
    """
    stopped = {item.cell_id for item in records if item.stopped_early}
    found, refused = {}, set()
    for item in records:
        other = references.get(item.cell_id)
        if item.cell_id not in scores or other not in scores or other == item.cell_id:
            continue
        if item.adaptive is not None and not item.stopped_early and item.adaptive.stops == "beyond":
            continue  # nothing but "beyond" was asked at the looks, so that the whole corpus is tested as any
        if item.adaptive is not None and other == item.adaptive.baseline:
            try:
                found[item.cell_id] = again(item.adaptive, scores[item.cell_id], scores[other])
            except ValueError as error:
                warn(f"cell {item.cell_id} is not compared: {error}")
                refused.add(item.cell_id)
        elif {item.cell_id, other} & stopped:
            why = "a cell that stopped early is compared with its baseline only"
            warn(f"cell {item.cell_id} is not compared with cell {other}: {why}")
            refused.add(item.cell_id)
    return Again(found, stopped, refused)


def again(adaptive: Adaptive, cell: Scores, baseline: Scores) -> Adaptive:
    """The looks of a record, computed again from its counts and its baseline's.

    Raises:
        ValueError: the baseline lacks an utterance, or the looks are after other numbers of utterances.
    """
    opponent = Opponent(adaptive.baseline, baseline, design_of(adaptive))
    utterances = list(zip(cell.sample.splits, cell.sample.ids, strict=True))
    sizes = [look.utterances for look in adaptive.looks]
    if sizes[-1] != len(utterances) or not all(map(opponent.knows, utterances)):
        raise ValueError("its utterances are not those of its looks, or not among its baseline's")
    looks = opponent.looks(utterances, cell.counts.words, sizes)
    return adaptive.model_copy(update={"words": opponent.words, "looks": looks})


def design_of(adaptive: Adaptive) -> Design:
    """The design that a cell was measured with."""
    return Design(adaptive.margin, adaptive.cells, adaptive.spending, adaptive.spending_tied, adaptive.stops)


def difference(adaptive: Adaptive) -> Estimate:
    """The difference in WER from the baseline at the last look, with its repeated interval."""
    last = adaptive.looks[-1]
    return Estimate(last.difference, None if last.low is None or last.high is None else (last.low, last.high))


def p_value(adaptive: Adaptive) -> float:
    """Repeated two-sided p-value of no difference in WER at the last look."""
    z, information = zip(*((look.z, look.words / adaptive.words) for look in adaptive.looks), strict=True)
    return float(repeated_p(z, information, design_of(adaptive))[-1])
