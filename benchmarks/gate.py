"""How often `quantlab gate` alarms without a reason, and how often it finds a planted loss.

    python benchmarks/gate.py docs/results/whisper.tar.xz docs/results/lowbit.tar.xz

Every cell of the archives with enough utterances and its baseline are two systems whose differences have the structure
of real errors. Each replay draws as many speakers as there are, with replacement, and exchanges the two systems of each
speaker at random: neither is worse, whatever differs, and an alarm is a false one. Losses are then planted:

- added: one more error in random words, a Poisson number for each utterance;
- mixed in: random utterances get the errors of another cell of the corpus (that with the smallest loss of twice the
  planted one or more), as many as bring the loss.

Stated is the mean power that the gate states for a replay without the loss, at the level of a single cell. Passed is
the share of replays with a loss that the gate would pass, as a loss of the margin is excluded. Next to the false alarms
of the gate's test are those of another, the one-sided percentile bootstrap. "Worst" is the cell with most of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantlab.analysis.pairs import find_baselines, pair_up, read_scores
from quantlab.records import several
from quantlab.stats.bootstrap import Units
from quantlab.stats.paired import ALPHA
from quantlab.stats.rates import Sample
from quantlab.stats.sign_flips import Power, p_more

Array = npt.NDArray[Any]
LOSSES = (0.01, 0.02)
MARGIN = 0.005
BOOTSTRAP = 1000  # resamples
HEAD = """| records | model | size | cells | alarm | worst | other | worst | loss | planted | found | stated | passed |
|---|---|---:|---:|---:|---:|---:|---:|---|---|---:|---:|---:|"""


class Cell(NamedTuple):
    """A cell against its baseline."""

    model: str
    sample: Sample
    differences: Array  # (utterances,)

    @property
    def loss(self) -> float:
        return float(self.differences.sum()) / sum(self.sample.words)


class Replay(NamedTuple):
    """A corpus drawn from another, and systems of which none is worse."""

    utterances: Array  # (drawn,): numbers of the utterances
    units: Units  # every drawn speaker is a unit of its own
    words: Array
    differences: Array


def main() -> None:
    """Replay the cells of every archive, and print a line for each corpus and planted loss."""
    options = _parser().parse_args()
    print(f"{options.replays:,} replays of every cell, seed {options.seed}.\n\n{HEAD}")
    for root in options.roots:
        groups: dict[tuple[str, Sample], list[Cell]] = {}
        for cell in read(root):
            if len(cell.differences) >= options.least and cell.differences.any():
                groups.setdefault((cell.model, cell.sample), []).append(cell)
        for (model, sample), cells in groups.items():
            start = f"| {root.name.split('.')[0]} | {model} | {len(sample.ids):,} | {len(cells)} | "
            print(*(start + line for line in lines(cells, options.replays, options.seed)), sep="\n", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="+", help="archives or folders of complete records")
    parser.add_argument("--replays", type=int, default=1000, help="of each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--least", type=int, default=300, help="leave out shorter corpora (default: %(default)s)")
    return parser


def read(root: Path) -> list[Cell]:
    """All cells of an archive that have a baseline."""
    with several.below([root]) as folder:
        found = several.stored(folder, None, print)
        records = {item.record.cell_id: item.record for item in found}
        pairs = pair_up(read_scores(found, print), find_baselines(records.values()), print)
    return [
        Cell(records[cell_id].setting("model.name"), pair.sample, pair.cell.words - pair.reference.words)
        for cell_id, pair in pairs.items()
    ]


def lines(cells: Sequence[Cell], replays: int, seed: int) -> Iterator[str]:
    """One line for each planted loss, over all cells of one corpus."""
    alarms, boots = [], []
    found: dict[tuple[float, str], list[tuple[float, float]]] = {}
    stated: dict[float, list[float]] = {}
    for number, cell in enumerate(cells):
        chance = np.random.default_rng([seed, number])
        some = [drawn(cell, chance) for _ in range(replays)]
        alarms.append(float(np.mean([alarm(item, item.differences) for item in some])))
        boots.append(float(np.mean([bootstrap_alarm(item, chance) for item in some])))
        for loss in LOSSES:
            powers = [Power(item.differences, item.words, item.units, ALPHA).of(loss) for item in some]
            stated.setdefault(loss, []).append(float(np.mean(powers)))
            for how, plant in (("added", added), ("mixed in", mixed_in(cells, loss))):
                if plant is not None:
                    planted = [plant(item, loss, chance) for item in some]
                    hits = [alarm(item, differences) for item, differences in zip(some, planted, strict=True)]
                    past = [passes(item, differences, chance) for item, differences in zip(some, planted, strict=True)]
                    found.setdefault((loss, how), []).append((float(np.mean(hits)), float(np.mean(past))))
    rates = [f"{rate:.1%}" for part in (alarms, boots) for rate in (np.mean(part), np.max(part))]
    for (loss, how), shares in found.items():
        hit, past = np.mean(shares, axis=0)
        planted = f"+{100 * loss:g} | {how} | {hit:.1%} | {np.mean(stated[loss]):.1%} | {past:.1%}"
        yield f"{' | '.join(rates)} | {planted} |"


def drawn(cell: Cell, chance: np.random.Generator) -> Replay:
    """Speakers drawn with replacement, with cell and baseline exchanged at random in each."""
    units = cell.sample.units
    members = [np.flatnonzero(units.of_utterance == number) for number in range(units.count)]
    speakers = [members[number] for number in chance.integers(units.count, size=units.count)]
    utterances, of = np.concatenate(speakers), np.repeat(np.arange(units.count), list(map(len, speakers)))
    signs = chance.choice([-1, 1], size=units.count)[of]
    words = np.array(cell.sample.words)[utterances]
    return Replay(utterances, Units(units.kind, of, (units.count,)), words, cell.differences[utterances] * signs)


def added(replay: Replay, loss: float, chance: np.random.Generator) -> Array:
    """Errors added to random words."""
    return replay.differences + chance.poisson(loss * replay.words)


def mixed_in(cells: Sequence[Cell], loss: float) -> Any:
    """A function that replaces random utterances by those of a worse cell; None if there is no such cell."""
    worse = min((cell for cell in cells if cell.loss >= 2 * loss), key=lambda cell: cell.loss, default=None)
    if worse is None:
        return None

    def plant(replay: Replay, loss: float, chance: np.random.Generator) -> Array:
        chosen = chance.random(len(replay.words)) < loss / worse.loss
        return np.where(chosen, worse.differences[replay.utterances], replay.differences)

    return plant


def alarm(replay: Replay, differences: Array) -> bool:
    """Whether the gate's test shows a loss."""
    return p_more(differences, replay.units, flips=2000) < ALPHA


def bootstrap_alarm(replay: Replay, chance: np.random.Generator) -> bool:
    """Whether the percentile bootstrap shows one."""
    rates = resampled(replay, replay.differences, chance)
    return (int((rates <= 0).sum()) + 1) / (BOOTSTRAP + 1) < ALPHA


def passes(replay: Replay, differences: Array, chance: np.random.Generator) -> bool:
    """Whether the 95 % interval excludes a loss of the margin."""
    return float(np.quantile(resampled(replay, differences, chance), 0.975)) < MARGIN


def resampled(replay: Replay, differences: Array, chance: np.random.Generator) -> Array:
    """The difference of the rates in each resample of the units."""
    units = replay.units
    sums, words = (np.bincount(units.of_utterance, part, units.count) for part in (differences, replay.words))
    weights = chance.multinomial(units.count, np.full(units.count, 1 / units.count), size=BOOTSTRAP)
    return (weights @ sums) / (weights @ words)


if __name__ == "__main__":
    main()
