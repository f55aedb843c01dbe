"""How often a cell that may stop early is wrong, and how much it saves: replays of complete records.

    python benchmarks/adaptive.py docs/results/whisper.tar.xz docs/results/whisper_h100.tar.xz

Every cell of the archives is replayed in many random orders, as if its utterances were measured in them, and the test
of `quantlab.stats.sequential` looked at it. Three nulls show how often it is wrong, at the level of a single cell:

- swapped: per utterance, cell and baseline are exchanged at random, so that neither is worse;
- no difference, and at the margin: speakers are drawn with replacement, and in place of each of their utterances one of
  the drawn speaker; those with a loss are so much more or less likely that the true difference is 0, or the margin.
  Cells in which that cannot be, as no utterance has a loss, have no such null.

An error counts at whichever look it happens, also after the cell would have stopped for another reason. Next to it is
the share of errors when the same utterances are looked at once, at the end: what the looks are not to blame for. Cells
that invent text (an utterance with more errors than the baseline's and its words together, as in a loop) have lines of
their own: their losses are rare and large, and a corpus without one of them looks better than the cell is.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from quantlab.analysis.evidence import evidence
from quantlab.analysis.pairs import Pair, find_baselines, pair_up, read_scores
from quantlab.data.order import balanced_order, look_sizes
from quantlab.records import several
from quantlab.stats.paired import holm, verdict
from quantlab.stats.rates import Sample
from quantlab.stats.sequential import Design, Seen, examine, repeated_p, seen

Array = npt.NDArray[Any]
DESIGNS = {
    "default": Design(0.0),
    "obrien_fleming": Design(0.0, 1, "obrien_fleming", "obrien_fleming"),
    "pocock": Design(0.0, 1, "pocock", "pocock"),
}
NULLS = SWAPPED, NO_DIFFERENCE, AT_MARGIN = "swapped", "no difference", "at the margin"
VERDICTS = ("worse", "better", "tied", "underpowered")
LOST = 5.0  # points of WER by which a cell is worse for a line of its own
LIKELIER = 30.0  # most by which the logarithm of a losing utterance's weight is changed
HEAD = "| records | utterances | spending | "
USED = f"""{HEAD}whole corpus | cells | used, median | 90 % use at most | same verdict |
|---|---:|---|---|---:|---:|---:|---:|"""
WRONG = f"""{HEAD}null | invents text | cells | wrong | worst cell | looked at once | worst cell |
|---|---:|---|---|---|---:|---:|---:|---:|---:|"""


class Cell(NamedTuple):
    """A measured cell to replay."""

    name: str
    pair: Pair
    verdict: str  # of the whole corpus, as in a report of its archive
    p: float  # the same, before Holm's correction

    @property
    def differences(self) -> Array:
        return self.pair.cell.words - self.pair.reference.words

    @property
    def points(self) -> float:
        """Difference of the WER over the whole corpus."""
        return 100 * float(self.differences.sum()) / sum(self.pair.sample.words)

    @property
    def invents(self) -> str:
        """Whether an utterance has more errors than the baseline's and its words together."""
        return "yes" if (self.differences > self.pair.sample.words).any() else "no"


class Orders(NamedTuple):
    """Random orders of the utterances of a corpus."""

    order: Array  # (orders, utterances)
    words: Array  # (utterances,)
    units: Array | None  # speaker of each utterance; None: utterances are units
    sizes: Array  # (looks,)

    def seen(self, differences: Array, words: Array) -> Seen:
        """What every look of every order sees, (orders, looks), of utterances in the order of measurement."""
        return seen(differences, words, None if self.units is None else self.units[self.order], self.sizes)


def main() -> None:
    """Replay the cells of every archive, and print what was used and said, and how often it was wrong."""
    options = _parser().parse_args()
    used, wrong = [], []
    for root in options.roots:
        cells = read(root)
        for size in sorted({len(cell.differences) for cell in cells if len(cell.differences) >= options.least}):
            some = [cell for cell in cells if len(cell.differences) == size]
            for spending in options.spending:
                start = f"| {root.name.split('.')[0]} | {size:,} | {spending} | "
                design = replace(DESIGNS[spending], margin=options.margin / 100, cells=len(cells))
                used += [start + line for line in savings(some, cells, design, options)]
                wrong += [start + line for line in errors(some, replace(design, cells=1), options)]
    print(f"{options.orders:,} orders of every cell, {options.looks} looks, seed {options.seed}.\n")
    print(USED, *used, "", WRONG, *wrong, sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="+", help="archives or folders of complete records")
    parser.add_argument("--orders", type=int, default=1000, help="replays of each cell (default: %(default)s)")
    parser.add_argument("--looks", type=int, default=10, help="evenly spread (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of orders and nulls (default: %(default)s)")
    parser.add_argument("--margin", type=float, default=0.5, help="points of WER (default: %(default)s)")
    parser.add_argument("--least", type=int, default=300, help="leave out shorter corpora (default: %(default)s)")
    parser.add_argument("--spending", nargs="+", default=["default"], choices=list(DESIGNS))
    parser.add_argument("--by-cell", action="store_true", help="a line for every cell, not for every verdict")
    return parser


def read(root: Path) -> list[Cell]:
    """All cells of an archive that a report of it compares with a baseline."""
    with several.below([root]) as folder:
        found = several.stored(folder, None, print)
        records = {item.record.cell_id: item.record for item in found}
        pairs = pair_up(read_scores(found, print), find_baselines(records.values()), print)
        cells = []
        for cell_id, known in evidence(found).items():
            if cell_id in pairs and known.comparison:
                name = (
                    f"{records[cell_id].setting('model.name')} {records[cell_id].setting('quant.name')} {cell_id[:8]}"
                )
                cells.append(Cell(name, pairs[cell_id], str(known.verdict), known.comparison.p))
        return cells


@functools.lru_cache(maxsize=4)
def orders_of(sample: Sample, count: int, looks: int, seed: int) -> Orders:
    """`count` orders of the corpus, as they are measured in with the seeds from `seed` × `count` on."""
    seeds = range(seed * count, (seed + 1) * count)
    order = [balanced_order(one, sample.ids, sample.splits, sample.speakers) for one in seeds]
    units = sample.units.of_utterance if sample.units.kind == "speaker" else None
    sizes = look_sizes(len(sample.ids), looks)
    return Orders(np.array(order), np.array(sample.words), units, np.array(sizes))


def savings(cells: Sequence[Cell], grid: Sequence[Cell], design: Design, options: argparse.Namespace) -> Iterator[str]:
    """Lines of utterances used and agreement with the whole corpus, by its verdict or by cell.

    Cells of the grid that are not replayed count in Holm's correction with what the whole corpus says.
    """
    replays = [_replayed(cell, design, options) for cell in cells]
    others = [cell.p for cell in grid if cell not in cells]
    p = np.array([holm([*row, *others])[: len(cells)] for row in np.array([item.p for item in replays]).T]).T
    said = [
        [verdict(*figures, design.margin) for figures in zip(item.difference, row, item.high, strict=True)]
        for item, row in zip(replays, p, strict=True)
    ]
    for name, places in _groups(cells, options.by_cell).items():
        used = np.concatenate([replays[place].used for place in places])
        words = [(word, cells[place].verdict) for place in places for word in said[place]]
        same = sum(word == whole for word, whole in words) / len(words)
        wrong = Counter(word for word, whole in words if word != whole)
        shown = ", ".join(f"{word} {count / len(words):.1%}" for word, count in wrong.most_common())
        median, most = np.quantile(used, [0.5, 0.9])
        yield f"{name} | {len(places)} | {median:.0%} | {most:.0%} | {same:.1%}{shown and f' ({shown})'} |"


class Replay(NamedTuple):
    """What was known when a cell stopped, (orders,)."""

    used: Array  # share of the utterances
    difference: Array
    high: Array
    p: Array  # repeated, before Holm's correction


def _replayed(cell: Cell, design: Design, options: argparse.Namespace) -> Replay:
    orders = orders_of(cell.pair.sample, options.orders, options.looks, options.seed)
    words = orders.words[orders.order]
    found = orders.seen(cell.differences[orders.order], words)
    information = found.words / found.words[:, -1:]
    looks = examine(found, information, design)
    last = np.minimum(looks.stops(), len(orders.sizes) - 1)
    # Orders differ in the information at a look by less than an utterance; p of all from the mean saves minutes.
    p = repeated_p(looks.z, information.mean(axis=0), design)
    rows = np.arange(len(last))
    return Replay(
        orders.sizes[last] / orders.sizes[-1], looks.difference[rows, last], looks.high[rows, last], p[rows, last]
    )


def _groups(cells: Sequence[Cell], by_cell: bool) -> Mapping[str, list[int]]:
    """Places of the cells of each line."""
    groups: dict[str, list[int]] = {}
    for place, cell in sorted(enumerate(cells), key=lambda item: (VERDICTS.index(item[1].verdict), -item[1].points)):
        lost = cell.verdict == "worse" and cell.points >= LOST
        word = f"{cell.verdict}, by {LOST:g} points or more" if lost else cell.verdict
        groups.setdefault(f"{word}: {cell.name}" if by_cell else word, []).append(place)
    return groups


def errors(cells: Sequence[Cell], design: Design, options: argparse.Namespace) -> Iterator[str]:
    """Lines of how often a true null was rejected, by null, over the cells that have it."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number, cell in enumerate(cells):
        orders = orders_of(cell.pair.sample, options.orders, options.looks, options.seed)
        chance = np.random.default_rng([options.seed, number])
        for null, (differences, words) in _nulls(cell, orders, design.margin, chance):
            every = orders.seen(differences, words)
            rates = []
            for some in (every, Seen(*(part[..., -1:] for part in every))):
                looks = examine(some, some.words / some.words[:, -1:], design)
                wrong = looks.tied if null == AT_MARGIN else looks.worse | looks.better
                rates.append(float(wrong.any(axis=-1).mean()))
            found.setdefault((null, cell.invents), []).append((rates[0], rates[1]))
    for (null, invents), pairs in sorted(found.items(), key=lambda item: (NULLS.index(item[0][0]), item[0][1])):
        (mean, mean_once), (most, most_once) = np.mean(pairs, axis=0), np.max(pairs, axis=0)
        yield f"{null} | {invents} | {len(pairs)} | {mean:.1%} | {most:.1%} | {mean_once:.1%} | {most_once:.1%} |"


def _nulls(
    cell: Cell, orders: Orders, margin: float, chance: np.random.Generator
) -> Iterator[tuple[str, tuple[Array, Array]]]:
    """Differences and words of replays in which a null is true, (orders, utterances) each."""
    differences = cell.differences[orders.order]
    signs = chance.choice([-1, 1], size=differences.shape)
    yield SWAPPED, (differences * signs, orders.words[orders.order])
    for name, target in ((NO_DIFFERENCE, 0.0), (AT_MARGIN, margin)):
        if (drawn := _drawn(cell, orders, target, chance)) is not None:
            yield name, (cell.differences[drawn], orders.words[drawn])


def _drawn(cell: Cell, orders: Orders, target: float, chance: np.random.Generator) -> Array | None:
    """Numbers of utterances, drawn so that the true difference is the target; None if no weights bring it there."""
    units = np.arange(len(orders.words)) if orders.units is None else orders.units
    counts = np.bincount(units)
    losing = cell.differences > 0

    def weights(log: float) -> Array:
        raw = np.exp(np.where(losing, log, 0.0))
        return raw / np.bincount(units, raw)[units]

    def excess(log: float) -> float:
        """Mean of the speakers' expected differences, less what the target is of their words."""
        return float((weights(log) * (cell.differences - target * orders.words)).sum() / len(counts))

    if excess(-LIKELIER) * excess(LIKELIER) >= 0:
        return None
    cumulated = np.cumsum(weights(brentq(excess, -LIKELIER, LIKELIER))[by_unit := np.argsort(units, kind="stable")])
    # Every speaker's weights sum to 1: those of the drawn speaker lie between its number and the next.
    speakers = chance.integers(len(counts), size=(len(orders.order), len(counts)))
    speaker = np.take_along_axis(speakers, units[orders.order], axis=1)
    place = np.searchsorted(cumulated, speaker + chance.random(speaker.shape), side="right")
    last = np.cumsum(counts)[speaker] - 1  # rounding does not lead to the next speaker
    return by_unit[np.minimum(place, last)]


if __name__ == "__main__":
    main()
