"""Seconds until an answer: the complete grid, `protocol=adaptive`, and `quantlab recommend --measure`.

    python benchmarks/early.py docs/results/whisper.tar.xz docs/results/lowbit.tar.xz

Complete records are replayed in random orders, as in `adaptive.py`. A grid is a baseline and all cells that were
compared with it. A cell takes its recorded seconds for loading, quantizing and warming up, and of those for decoding
the share of the utterances that it used; a baseline takes all of them. The answer is the smallest cell whose WER is
shown to be no more than a limit above the baseline's; of the search, among the cells that it has not stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from adaptive import DESIGNS, Array, Cell, orders_of

from quantlab.analysis.evidence import evidence
from quantlab.analysis.pairs import find_baselines, pair_up, read_scores
from quantlab.config.compose import compose
from quantlab.config.schema import RunConfig
from quantlab.grid.least import bound
from quantlab.models.linears import linears
from quantlab.records import several
from quantlab.records.schema import Record
from quantlab.stats.sequential import Design, examine

HEAD = "| records | baseline | utterances | cells | "
ADAPTIVE = f"""{HEAD}complete, s | adaptive, s | share |
|---|---|---:|---:|---:|---:|---:|"""
SEARCH = f"""{HEAD}limit | measured | seconds | 90 % at most | same answer | answer |
|---|---|---:|---:|---:|---:|---:|---:|---:|---|"""


class Timed(NamedTuple):
    """A cell to replay, with what it costs."""

    cell: Cell
    fixed_s: float
    decode_s: float
    size_bytes: int
    least_bytes: int
    high: float | None  # of the interval of its WER increase over the whole corpus, fraction

    @property
    def complete_s(self) -> float:
        return self.fixed_s + self.decode_s


class Grid(NamedTuple):
    """A baseline and the cells compared with it."""

    start: str  # of its lines
    baseline: Record
    cells: Sequence[Timed]

    @property
    def complete_s(self) -> float:
        return sum(seconds(self.baseline)) + sum(item.complete_s for item in self.cells)


def main() -> None:
    """Replay every grid of the archives, and print two tables."""
    options = _parser().parse_args()
    grids = [grid for root in options.roots for grid in read(root, options.least, options.fewest)]
    print(f"{options.orders:,} orders, {options.looks} looks, seed {options.seed}.\n")
    print(ADAPTIVE)
    for grid in grids:
        print(adaptive(grid, options))
    print(f"\n{SEARCH}")
    for grid in grids:
        for limit in options.limits:
            print(search(grid, limit / 100, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="+", help="archives or folders of complete records")
    parser.add_argument("--orders", type=int, default=1000, help="replays of each cell (default: %(default)s)")
    parser.add_argument("--looks", type=int, default=10, help="evenly spread (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the orders (default: %(default)s)")
    parser.add_argument("--margin", type=float, default=0.5, help="points of WER (default: %(default)s)")
    parser.add_argument("--limits", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="of the search, points of WER")
    parser.add_argument("--least", type=int, default=300, help="leave out shorter corpora (default: %(default)s)")
    parser.add_argument("--fewest", type=int, default=4, help="leave out smaller grids (default: %(default)s)")
    return parser


def seconds(record: Record) -> tuple[float, float]:
    """Seconds of a complete record: for what comes before the corpus, and for decoding it once."""
    stages = record.stages.model_dump(exclude={"measure_s", "total_s", "first_inference_s"})
    decode = sum(split.audio_s * split.rtf for split in record.splits.values() if split.rtf is not None)
    return sum(value for value in stages.values() if value is not None), decode


def read(root: Path, least: int, fewest: int) -> Iterator[Grid]:
    """The grids of an archive."""
    with several.below([root]) as folder:
        found = several.stored(folder, None, print)
        records = {item.record.cell_id: item.record for item in found}
        baselines = find_baselines(records.values())
        pairs = pair_up(read_scores(found, print), baselines, print)
        known = evidence(found)
    grids: dict[str, list[Timed]] = {}
    for cell_id, pair in pairs.items():
        record, comparison = records[cell_id], known[cell_id].comparison
        if comparison is None or record.receipt is None or len(pair.sample.ids) < least:
            continue
        cell = Cell(f"{record.setting('quant.name')} {cell_id[:4]}", pair, str(known[cell_id].verdict), comparison.p)
        interval = comparison.wer_difference.ci95
        timed = Timed(
            cell, *seconds(record), record.receipt.size_bytes, _least(record), None if interval is None else interval[1]
        )
        grids.setdefault(baselines[cell_id], []).append(timed)
    for baseline, cells in grids.items():
        if len(cells) >= fewest:
            record = records[baseline]
            name = f"{record.setting('model.name')} {record.setting('device.name')} {baseline[:8]}"
            start = f"| {root.name.split('.')[0]} | {name} | {len(cells[0].cell.differences):,} | {len(cells)} | "
            yield Grid(start, record, cells)


def _least(record: Record) -> int:
    [config] = compose([f"model={record.setting('model.name')}", "model.weights=random"])
    shape = config.model.architecture
    widths = {f"{part}_ffn_dim": shape.ffn_dim for part in ("encoder", "decoder")}
    return bound(RunConfig.model_validate(record.config), shape.parameters, linears(shape.model_dump() | widths))


def adaptive(grid: Grid, options: argparse.Namespace) -> str:
    """Seconds of all cells, each stopped by its verdict: the median over the orders."""
    design = replace(DESIGNS["default"], margin=options.margin / 100, cells=len(grid.cells))
    spent = sum(seconds(grid.baseline)) + np.zeros(options.orders)
    for item in grid.cells:
        used = _used(item.cell, design, options)
        spent += item.fixed_s + used * item.decode_s
    share = np.median(spent) / grid.complete_s
    return f"{grid.start}{grid.complete_s:,.0f} | {np.median(spent):,.0f} | {share:.0%} |"


def search(grid: Grid, limit: float, options: argparse.Namespace) -> str:
    """What the search measures, how long that takes, and how often its answer is that of the complete grid."""
    design = Design(limit, len(grid.cells), stops="beyond")
    assert grid.baseline.receipt is not None
    names = [str(grid.baseline.setting("quant.name")), *(item.cell.name for item in grid.cells)]
    sizes = np.array([grid.baseline.receipt.size_bytes, *(item.size_bytes for item in grid.cells)])
    chosen = np.zeros(options.orders, dtype=int)  # the baseline
    spent = sum(seconds(grid.baseline)) + np.zeros(options.orders)
    measured = np.ones(options.orders)
    for number in sorted(range(len(grid.cells)), key=lambda number: grid.cells[number].least_bytes):
        item = grid.cells[number]
        used = _used(item.cell, design, options)
        can_be = item.least_bytes < sizes[chosen]
        measured += can_be
        spent += np.where(can_be, item.fixed_s + used * item.decode_s, 0)
        within = (used == 1) & (item.high is not None and item.high <= limit)
        better = can_be & within & (item.size_bytes < sizes[chosen])
        chosen = np.where(better, number + 1, chosen)
    qualify = [item.high is not None and item.high <= limit for item in grid.cells]
    answer = min(np.flatnonzero([True, *qualify]), key=lambda number: sizes[number])
    median, most = np.quantile(spent / grid.complete_s, [0.5, 0.9])
    others = _others(chosen, answer, names)
    return (
        f"{grid.start}{100 * limit:g} | {measured.mean():.1f} | {median:.0%} | {most:.0%} | "
        f"{(chosen == answer).mean():.1%} | {names[answer]}{others} |"
    )


def _others(chosen: Array, answer: int, names: Sequence[str]) -> str:
    counts: Mapping[int, int] = dict(zip(*np.unique(chosen, return_counts=True), strict=True))
    rest = sorted((number for number in counts if number != answer), key=lambda number: -counts[number])
    listed = ", ".join(f"{names[number]} {counts[number] / len(chosen):.1%}" for number in rest)
    return f" ({listed})" if listed else ""


def _used(cell: Cell, design: Design, options: argparse.Namespace) -> Array:
    """Share of the utterances used, (orders,)."""
    orders = orders_of(cell.pair.sample, options.orders, options.looks, options.seed)
    found = orders.seen(cell.differences[orders.order], orders.words[orders.order])
    looks = examine(found, found.words / found.words[:, -1:], design)
    return orders.sizes[np.minimum(looks.stops(), len(orders.sizes) - 1)] / orders.sizes[-1]


if __name__ == "__main__":
    main()
