"""The parts of a corpus after which a cell is compared with its baseline, and may stop (`protocol.looks`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from quantlab.analysis.looks import Opponent
from quantlab.data import Features
from quantlab.data.order import balanced_order, look_sizes
from quantlab.records.schema import Adaptive, Utterance
from quantlab.scoring.normalise import is_wordless


def parts(speech: Features, looks: int | None, seed: int) -> list[Features]:
    """Cut a corpus into the parts that are measured between two looks, of about as many utterances with words each.

    Utterances are in the random order of the seed; within a part they are grouped by split, as batches are.

    Args:
        speech: the whole corpus.
        looks: number of parts at most; None: a single part, in the order of the corpus.
        seed: of the order, see `balanced_order`.
    """
    if looks is None:
        return [speech]
    found = [
        (name, range(first, first + count)) for name, split in speech.splits.items() for first, count in split.utterances()
    ]
    first = [(speech.splits[name], windows[0]) for name, windows in found]
    ids, speakers = [split.ids[at] for split, at in first], [split.speakers[at] for split, at in first]
    order = balanced_order(seed, ids, [name for name, _ in found], speakers)
    spoken = [not is_wordless(split.texts[at]) for split, at in first]
    if not any(spoken):
        return [speech]
    sizes = look_sizes(sum(spoken), looks)
    cut: list[dict[str, list[int]]] = [defaultdict(list) for _ in sizes]
    look = count = 0
    for index in order:
        if count == sizes[look] and look + 1 < len(sizes):
            look += 1
        name, windows = found[index]
        cut[look][name] += windows
        count += spoken[index]
    return [
        Features({name: speech.splits[name].take(part[name]) for name in speech.splits if name in part}, speech.problems)
        for part in cut
    ]


def look(opponent: Opponent, utterances: Sequence[Utterance], before: Adaptive | None, available: int) -> Adaptive:
    """Look at a cell once more.

    Args:
        opponent: what it is compared with.
        utterances: all measured so far.
        before: what the looks before have shown.
        available: number of utterances of the corpus.
    """
    tested = [item for item in utterances if opponent.knows(item)]
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
        looks=tuple(opponent.looks(tested, sizes)),
    )
