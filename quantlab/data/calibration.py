"""Selection of calibration utterances for static quantization: a seeded random share of the evaluation data.

Source: arXiv 2511.08093, which uses 10 %.
"""

from __future__ import annotations

import hashlib

from quantlab.config.schema import CalibrationConfig
from quantlab.data.speech import Features


def calibration_ids(features: Features, calibration: CalibrationConfig, seed: int) -> tuple[str, ...]:
    """Select a random `calibration.fraction` of the measurable utterances, at least one, in corpus order.

    Drawn over all splits together. The selection is the same for `source=eval` and `source=disjoint`, on every
    machine and in every version, since utterances are ranked by a hash of seed and id.
    """
    count = len({id for split in features.splits.values() for id in split.ids})  # windows share theirs
    return chosen_ids(features, max(1, round(calibration.fraction * count)), seed)


def chosen_ids(features: Features, count: int | None, seed: int) -> tuple[str, ...]:
    """Select `count` random utterances of all splits together, or all (None), in corpus order."""
    ids = list(dict.fromkeys(id for split in features.splits.values() for id in split.ids))
    chosen = set(sorted(ids, key=lambda id: _rank(seed, id))[:count])
    return tuple(id for id in ids if id in chosen)


def _rank(seed: int, id: str) -> bytes:
    return hashlib.sha256(f"{seed} {id}".encode("utf-8", "surrogatepass")).digest()
