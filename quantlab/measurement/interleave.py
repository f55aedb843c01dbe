"""Interleaved timing of a cell and its baseline on the same batches, which cancels drift of the machine.

A block is A B B A (cell, baseline, baseline, cell) on one batch, every other block B A A B, so that slow or steady
changes of the machine affect both alike. Blocks are repeated until the interval of the ratio of the two times is narrow
enough, or the time budget is spent.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from quantlab.config.schema import ProtocolConfig
from quantlab.data import Features
from quantlab.data.speech import SplitBatch, split_batches
from quantlab.engines import Engine
from quantlab.measurement.timing import Side, timed
from quantlab.records.figures import calls_s
from quantlab.records.schema import Batch, Work
from quantlab.stats.ratios import converged, typical_ratio

Progress = Callable[[str, int, int], None]  # stage, seconds spent, seconds in the budget

SIDES: tuple[Side, Side] = ("cell", "baseline")
SHARES: Mapping[Work, float] = {"natural": 0.6, "encoder": 0.2, "forced": 0.2}  # of the budget


def shuffled_batches(speech: Features, batch_size: int, seed: int) -> list[SplitBatch]:
    """All batches in random order, so that an early end covers the splits in proportion."""
    found = list(split_batches(speech, batch_size))
    random.Random(seed).shuffle(found)
    return found


def batches_for(found: Sequence[SplitBatch], work: Work) -> list[SplitBatch]:
    """The batches for a kind of work; fixed-length work uses only full batches, to keep the work equal."""
    most = max(len(part.speech.ids) for part in found)
    return [part for part in found if work == "natural" or len(part.speech.ids) == most]


def works(decoder: Engine) -> list[Work]:
    """The kinds of work that a model has: one without decoding steps has no decoding of fixed length."""
    return [work for work in SHARES if work != "forced" or decoder.decoding.forced_tokens]


def side_order(block: int) -> tuple[Side, ...]:
    """The order of the two models in a block: A B B A, then B A A B."""
    first, second = SIDES if block % 2 == 0 else SIDES[::-1]
    return (first, second, second, first)


def take_turns(
    sides: Mapping[Side, Engine], found: Sequence[SplitBatch], protocol: ProtocolConfig, progress: Progress
) -> Iterator[Batch]:
    """Time both models, resident in this process, free-running and at fixed length.

    Args:
        sides: the two models, warmed up.
        found: the batches, see `shuffled_batches`.
        protocol: target width of the interval, and budget.
        progress: called between blocks, never inside the timed region.

    Yields:
        The timed calls, in order.
    """
    budget = Budget(protocol.budget_s, progress)
    for work in works(sides["cell"]):
        these = batches_for(found, work)
        for side in SIDES:
            timed(sides[side], these[0], work, side)  # warm-up for fixed-length work
        yield from run_until_converged(_blocks(sides, these, work), protocol.rel_ci, partial(budget.left, work))


def _blocks(sides: Mapping[Side, Engine], these: Sequence[SplitBatch], work: Work) -> Iterator[list[Batch]]:
    for block, part in enumerate(itertools.cycle(these)):
        yield [timed(sides[side], part, work, side, block) for side in side_order(block)]


class Budget:
    """Time budget for the timing against the baseline, divided between the kinds of work."""

    def __init__(self, budget_s: float, progress: Progress) -> None:
        self._start_s = time.monotonic()
        self._budget_s = budget_s
        self._progress = progress

    def left(self, work: Work | None = None) -> bool:
        """Whether this kind of work (None: any) has time left; later kinds get what earlier ones left over."""
        kinds = list(SHARES)
        so_far = kinds if work is None else kinds[: kinds.index(work) + 1]
        until_s = self._budget_s * sum(SHARES[kind] for kind in so_far)
        spent_s = time.monotonic() - self._start_s
        self._progress(f"against fp32, {work or 'one at a time'}", round(spent_s), round(self._budget_s))
        return spent_s < until_s


def run_until_converged(blocks: Iterable[Sequence[Batch]], rel_ci: float, go_on: Callable[[], bool]) -> Iterator[Batch]:
    """Yield the calls of blocks until the ratio has converged or `go_on` returns False, at least two blocks.

    If a block has several kinds of work, convergence is judged by free-running calls.
    """
    cell: list[list[float]] = []
    baseline: list[list[float]] = []
    for block in blocks:
        yield from block
        work = block[0].work
        cell.append(calls_s(block, work, "cell"))
        baseline.append(calls_s(block, work, "baseline"))
        allowed = go_on()
        if converged(typical_ratio(cell, baseline), len(cell), rel_ci) or (not allowed and len(cell) > 1):
            return
