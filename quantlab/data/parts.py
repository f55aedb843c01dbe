"""The parts of a corpus after which a cell is looked at, and may stop (`protocol.looks`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from quantlab.data.order import balanced_order, look_sizes
from quantlab.data.speech import Features
from quantlab.scoring.normalise import is_wordless


def parts(speech: Features, looks: int | None, seed: int) -> list[Features]:
    """Cut a corpus into the parts that are measured between two looks, of about as many utterances with words each.

    Utterances with words are in the random order of the seed, and so are those without, of which each part has its
    share; within a part they are grouped by split, as batches are.

    Args:
        speech: the whole corpus.
        looks: number of parts at most; None: a single part, in the order of the corpus.
        seed: of the order, see `balanced_order`.
    """
    if looks is None:
        return [speech]
    found = [
        _Windows(
            name, split.ids[first], split.speakers[first], is_wordless(split.texts[first]), range(first, first + n)
        )
        for name, split in speech.splits.items()
        for first, n in split.utterances()
    ]
    spoken, wordless = [_in_order(seed, [item for item in found if item.wordless is kind]) for kind in (False, True)]
    sizes = look_sizes(len(spoken), looks) if spoken else [0]
    cut = []
    for before, after in pairwise([0, *sizes]):
        share = slice(*(round(len(wordless) * size / max(len(spoken), 1)) for size in (before, after)))
        some = [*spoken[before:after], *wordless[share if spoken else slice(None)]]
        cut.append({name: [at for item in some if item.split == name for at in item.windows] for name in speech.splits})
    return [
        Features({name: speech.splits[name].take(positions) for name, positions in part.items() if positions}, ())
        for part in cut
    ]


class _Windows(NamedTuple):
    """An utterance."""

    split: str
    id: str
    speaker: str | None
    wordless: bool  # its reference has no word, so that it is not compared
    windows: range  # positions in its split


def _in_order(seed: int, some: Sequence[_Windows]) -> list[_Windows]:
    order = balanced_order(seed, *([getattr(item, name) for item in some] for name in ("id", "split", "speaker")))
    return [some[index] for index in order]
