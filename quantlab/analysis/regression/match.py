"""Which cell of a root is a cell of the baseline, measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantlab.analysis.regression.changes import differing, settings_changed
from quantlab.records.schema import Record
from quantlab.util.counted import counted


@dataclass(frozen=True)
class Match:
    """What was found for a cell of the baseline."""

    now: Record | None  # it may have failed
    why: str = ""  # if none: why not
    note: str = ""  # what readers should know of the choice


def match(before: Sequence[Record], now: Sequence[Record], any_quantizer: bool = False) -> list[Match]:
    """Find each cell of the baseline among records.

    A cell was measured again if a record has the same quantizer and corpus (by fingerprint). Checkpoint, versions,
    settings and machine may differ. Of several, the one with the fewest other settings is chosen, of equal ones the
    latest. No record is matched twice.

    Args:
        before: cells of the baseline.
        now: records to choose from.
        any_quantizer: whether the quantizer may differ.

    Returns:
        A match for each cell of the baseline.
    """
    fits = [[item for item in now if (any_quantizer or _quant(item) == _quant(cell))] for cell in before]
    far = [
        {item.cell_id: len(differing(cell, item)) for item in some if _same_corpus(cell, item)}
        for cell, some in zip(before, fits, strict=True)
    ]
    found: dict[int, Match] = {}
    taken: set[str] = set()
    for place in sorted(range(len(before)), key=lambda place: min(far[place].values(), default=0)):
        free = [item for item in fits[place] if item.cell_id in far[place] and item.cell_id not in taken]
        found[place] = _chosen(free, far[place]) if free else Match(None, _missing(before[place], fits[place]))
        if (chosen := found[place].now) is not None:
            taken |= {item.cell_id for item in free if not differing(chosen, item)}
    return [found[place] for place in range(len(before))]


def _quant(record: Record) -> object:
    return record.setting("quant.name")


def _same_corpus(before: Record, now: Record) -> bool:
    """By fingerprint; a cell that failed before its corpus was read has none, and is known by the corpus's name."""
    mark = now.fingerprints.get("corpus")
    if mark is None and now.status != "ok":
        return before.setting("dataset.name") == now.setting("dataset.name")
    return before.fingerprints.get("corpus") == mark


def _chosen(free: Sequence[Record], far: dict[str, int]) -> Match:
    least = min(far[item.cell_id] for item in free)
    nearest = sorted((item for item in free if far[item.cell_id] == least), key=lambda item: item.created_at)
    latest = nearest[-1]
    if any(differing(latest, item) for item in nearest):
        ids = ", ".join(item.cell_id for item in nearest)
        return Match(None, f"{len(nearest)} cells fit equally ({ids}): name one with --cell")
    return Match(latest, note=f"the latest of {len(nearest)} records with its settings" if nearest[1:] else "")


def _missing(before: Record, fits: Sequence[Record]) -> str:
    name = before.setting("quant.name")
    if not fits:
        return f"not measured again: there is no cell with quant={name}"
    on = [item for item in fits if _same_corpus(before, item)]
    if on:
        return f"not measured again: {counted(len(on), 'cell')} with quant={name}, compared with others of the baseline"
    changed = settings_changed(before, min(fits, key=lambda item: len(differing(before, item))))
    corpus = [line for key, line in changed.items() if key.split(".")[0] == "dataset"]
    return f"measured on other utterances: {', '.join(corpus) or 'the same settings, but other audio or texts'}"
