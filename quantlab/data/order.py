"""The order in which utterances are measured if a cell may stop early: random, and balanced in every prefix."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from quantlab.records.schema import to_json


def balanced_order(seed: int, ids: Sequence[str], splits: Sequence[str], speakers: Sequence[str | None]) -> list[int]:
    """Positions of the utterances in a random order that depends on nothing but seed, ids, splits and speakers.

    Every prefix has about its share of every split and speaker (systematic sampling within strata; Cochran, "Sampling
    Techniques", 1977, chapter 8): of a group of n, the k-th in random order is placed at (k + u) / n, and all are
    sorted by place. Speakers are merged into their split in this way, then splits into the corpus.

    Args:
        seed: another seed gives another order.
        ids: unique in the corpus, as are all of `Corpus`.
        splits: split of each utterance.
        speakers: speaker of each utterance; those without one are a group of their own in each split.
    """
    ranks = [_hash(seed, "utterance", id) for id in ids]
    found: dict[str | None, dict[str | None, list[int]]] = {}
    for index in sorted(range(len(ids)), key=ranks.__getitem__):
        found.setdefault(splits[index], {}).setdefault(speakers[index], []).append(index)
    return _merged(seed, {split: _merged(seed, groups, split) for split, groups in found.items()})


def _merged(seed: int, groups: dict[str | None, list[int]], *within: str | None) -> list[int]:
    """Merge groups evenly. Their offsets u are spread evenly too, so that they do not all come first or last."""
    names = sorted(groups, key=lambda name: _hash(seed, "group", *within, name))
    places = (
        ((k + (start + 0.5) / len(names)) / len(groups[name]), start, index)
        for start, name in enumerate(names)
        for k, index in enumerate(groups[name])
    )
    return [index for *_, index in sorted(places)]


def _hash(seed: int, *parts: str | None) -> bytes:
    """Not that of calibration: the order would begin with the calibration utterances of the same seed."""
    text = to_json(["order", seed, *parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def look_sizes(utterances: int, looks: int) -> list[int]:
    """Numbers of utterances after which to look, evenly spread; all are the last, and there are no two equal."""
    return sorted({-(-utterances * look // looks) for look in range(1, looks + 1)})
