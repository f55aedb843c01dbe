"""Timing of a cell and its baseline in alternating processes, for models that do not fit in memory together.

A round is A B B A of whole processes, every other round B A A B, over the same batches. It counts as one block, since
random effects of a process (its place in memory, the clock of its core) are shared by all its calls. A round costs four
process starts and model loads, so an interval as narrow as that of `interleave` takes long.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import psutil
import torch

from quantlab.config.schema import RunConfig
from quantlab.data import Corpus
from quantlab.engines.clocks import Clocks
from quantlab.measurement.interleave import (
    Budget,
    Progress,
    batches_for,
    run_until_converged,
    shuffled_batches,
    side_order,
    works,
)
from quantlab.measurement.timing import Side, timed
from quantlab.recogniser.assemble import assemble, prepared, warm_up
from quantlab.records.schema import Batch

HEADROOM = 1.5  # free memory needed for a second model / its weights, to leave room for activations and caches
BATCHES = 4  # timed per process, so that a round is not all loading


def must_alternate(config: RunConfig, baseline_bytes: int, device: torch.device) -> bool:
    """Whether the two models must run in alternating processes; `protocol.residency=auto` checks the free memory.

    Args:
        config: configuration of the cell, whose model is loaded.
        baseline_bytes: size of the model in fp32; a 16-bit baseline takes half of it.
        device: device of the models.
    """
    if config.protocol.residency != "auto":
        return config.protocol.residency == "alternate"
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    size_bytes = baseline_bytes if config.runtime.dtype == "float32" else baseline_bytes // 2
    return size_bytes * HEADROOM > free


def alternate_processes(config: RunConfig, corpus: Corpus | None, batches: int, progress: Progress) -> Iterator[Batch]:
    """Time both models in separate processes, free-running and at fixed length.

    Args:
        config: resolved configuration of the cell, whose model must have been freed.
        corpus: the listed corpus; None: each process lists it.
        batches: number of batches of the corpus.
        progress: called between rounds.

    Yields:
        The timed calls, in order; calls of a round share `block`.
    """
    budget = Budget(config.protocol.budget_s, progress)
    yield from run_until_converged(_rounds(config, corpus, batches), config.protocol.rel_ci, budget.left)


def _rounds(config: RunConfig, corpus: Corpus | None, batches: int) -> Iterator[list[Batch]]:
    configs: dict[Side, RunConfig] = {"cell": config, "baseline": config.of_baseline()}
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the memory that must be free
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for block in itertools.count():
            chosen = [position % batches for position in range(block * BATCHES, (block + 1) * BATCHES)]
            yield [
                call
                for side in side_order(block)
                for call in pool.submit(_segment, configs[side], corpus, side, chosen, block).result()
            ]


def _segment(config: RunConfig, corpus: Corpus | None, side: Side, chosen: Sequence[int], block: int) -> list[Batch]:
    """The work of one process: load one of the two models, warm it up, time it on a few batches."""
    with prepared(config) as device:
        clocks = Clocks(device)
        made = assemble(config, device, clocks, corpus=corpus)
        warm_up(made.decoder, made.speech.measured, config.protocol.warmup_batches, clocks)
        found = shuffled_batches(made.speech.measured, made.decoder.decoding.batch_size, config.seed)
        calls = []
        for work in works(made.decoder):
            these = batches_for(found, work)
            timed(made.decoder, these[0], work, side)  # warm-up for fixed-length work
            calls += [timed(made.decoder, these[position % len(these)], work, side, block) for position in chosen]
    return calls
