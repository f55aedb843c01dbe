"""Pairing of cells with their baselines, or other references, on common utterances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import from_json

from quantlab.analysis.devices import find_device_baselines
from quantlab.analysis.events import Events, events
from quantlab.records.cell_id import LIBRARIES, identity
from quantlab.records.schema import Record, to_json
from quantlab.records.several import Stored
from quantlab.records.storage import RAW_BYTES, cells_dir, real_path
from quantlab.stats.rates import Counts, Sample
from quantlab.util.counted import counted
from quantlab.util.errors import shortened
from quantlab.util.files import read_bytes

Warn = Callable[[str], None]

_COUNTS = itemgetter("substitutions", "deletions", "insertions", "hits", "char_errors", "ref_chars")
_NAMES = itemgetter("split", "id", "speaker")
_LARGEST = 2**40  # limit for a count of one utterance, so that sums are exact


class Scores(NamedTuple):
    """The counts of one cell."""

    sample: Sample
    counts: Counts
    events: Events


class Pair(NamedTuple):
    """A cell and what it is compared with on common utterances, in the same order."""

    sample: Sample
    cell: Counts
    reference: Counts
    events: tuple[Events, Events] | None = None  # of the two


_NOT_SHARED = ("calibration", "recipe", "keywords")  # fingerprints that a baseline lacks, or that no text depends on


_SEEDED = ("protocol.fallbacks", "protocol.looks")  # in which the seed draws tokens, or orders the utterances


def find_baselines(records: Iterable[Record]) -> dict[str, str]:
    """Cell id → id of its baseline, if any: quant=none and everything else equal.

    "Everything else" covers all inputs of the cell id except the quantizer and its libraries' versions, plus
    normaliser, error unit and scorer. Calibration settings are ignored unless they remove utterances from the score
    (`disjoint`), and so is the seed unless it changes a baseline's texts. Of several baselines the one that a cell was
    compared with while it was measured is used, else the latest, of those with the cell's seed if there are any.
    Cells of a bundle have baselines of their own (`find_device_baselines`).
    """
    families: dict[str, list[Record]] = {}
    bundled: list[Record] = []
    home: list[Record] = []
    for item in records:
        if item.bundle is not None:
            bundled.append(item)
            continue
        home += [item] if is_baseline(item) and item.status == "ok" else []
        families.setdefault(family(item), []).append(item)
    found: dict[str, str] = {}
    for some in families.values():
        candidates = [item for item in some if is_baseline(item) and item.status == "ok"]
        if candidates:
            candidates.sort(key=lambda item: item.created_at)
            of_seed = {item.setting("seed"): item for item in candidates}  # the latest of each
            found |= {item.cell_id: of_seed.get(item.setting("seed"), candidates[-1]).cell_id for item in some}
            ids = {item.cell_id for item in candidates}
            found |= {item.cell_id: one.baseline for item in some if (one := item.adaptive) and one.baseline in ids}
        found |= {item.cell_id: item.cell_id for item in some if is_baseline(item)}
    return found | find_device_baselines(bundled, home)


def is_baseline(record: Record) -> bool:
    """Whether the cell is a baseline."""
    return bool(record.setting("quant.name") == "none")


def family(record: Record) -> str:
    """What a cell shares with those it may be compared with: all but quantizer, calibration and recovery."""
    config = identity(record.config)
    config.pop("quant", None)
    config.pop("recovery", None)
    if record.setting("protocol.looks") is not None:  # what makes a cell stop makes no difference to its baseline
        config.pop("stats", None)
        config["protocol"].pop("stops", None)
    if record.setting("calibration.source") != "disjoint":
        config.pop("calibration", None)
        if record.setting("model.weights") != "random" and not any(map(record.setting, _SEEDED)):
            config.pop("seed", None)  # it only draws calibration utterances, or orders a training
    marks = {name: mark for name, mark in record.fingerprints.items() if name not in _NOT_SHARED}
    marks["checkpoint"] = marks.pop(
        "baseline", marks.get("checkpoint", "")
    )  # for a file as shipped, the checkpoint it was made from
    versions = record.environment.get("versions") or {}
    common = {name: versions.get(name) for name in LIBRARIES}
    scoring = [record.normaliser, record.error_unit, record.scorer]
    return to_json([config, marks, common, *scoring])


def read_scores(found: Iterable[Stored], warn: Warn) -> dict[str, Scores]:
    """The counts of all cells with status ok and text, by cell id; `warn` is called for unreadable ones."""
    known = {}
    samples: dict[Sample, Sample] = {}  # most cells share one
    for root, item in found:
        path = cells_dir(root) / item.cell_id / "utterances.jsonl"
        try:
            scores = _scores(path) if item.status == "ok" else None
            if scores is not None:
                _check_sums(item, scores)
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            warn(f"{real_path(path)} cannot be read, so its cell is not compared: {type(error).__name__}: {error}")
        else:
            if scores is not None:
                known[item.cell_id] = scores._replace(sample=samples.setdefault(scores.sample, scores.sample))
    return known


def _scores(path: Path) -> Scores | None:
    """Read counts without validating every utterance, which is several times faster; None without text.

    Raises:
        ValueError: a line or a count is invalid; KeyError, TypeError and OverflowError mean the same.
    """
    rows = read_rows(path)
    if any(row["hypothesis"] is None for row in rows):
        return None
    rows = [row for row in rows if not row.get("nonspeech")]
    if not rows:
        return None
    counts = np.array(list(map(_COUNTS, rows)))
    if counts.dtype.kind != "i" or counts.min() < 0 or counts.max() > _LARGEST:
        raise ValueError(f"a count is not a whole number from 0 to {_LARGEST:.0e}")
    substitutions, deletions, insertions, hits, char_errors, ref_chars = counts.T
    splits, ids, speakers = zip(*map(_NAMES, rows), strict=True)
    if {*map(type, splits), *map(type, ids)} != {str} or not {*map(type, speakers)} <= {str, type(None)}:
        raise TypeError("split, id and speaker of an utterance must be strings; the speaker may be null")
    sample = Sample(
        splits=splits,
        ids=ids,
        speakers=speakers,
        words=tuple((substitutions + deletions + hits).tolist()),
        chars=tuple(ref_chars.tolist()),
    )
    happened = events(rows, deletions, insertions, hits + substitutions + insertions)
    return Scores(sample, Counts(substitutions + deletions + insertions, char_errors), happened)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The utterances of a cell as JSON has them, not validated; raises OSError or ValueError."""
    lines = [line for line in read_bytes(path, RAW_BYTES).split(b"\n") if line]
    rows: list[dict[str, Any]] = from_json(b"[" + b",".join(lines) + b"]")
    return rows


def _check_sums(record: Record, scores: Scores) -> None:
    """Check that the counts of the utterances add up to those in record.json.

    Raises:
        ValueError: they do not; the message names the split.
    """
    splits = np.array(scores.sample.splits)
    words, chars = np.array(scores.sample.words), np.array(scores.sample.chars)
    if other := set(scores.sample.splits) - set(record.splits):
        raise ValueError(f"record.json has other splits: {', '.join(map(shortened, sorted(other)))}")
    for name, stored in record.splits.items():
        chosen = splits == name
        found = [int(part[chosen].sum()) for part in (scores.counts.words, words, scores.counts.chars, chars)]
        if found != [stored.errors, stored.ref_words, stored.char_errors, stored.ref_chars]:
            raise ValueError(f"its counts do not add up to those of split {shortened(name)} in record.json")


def pair_up(
    scores: Mapping[str, Scores], references: Mapping[str, str], warn: Warn, stopped: Collection[str] = ()
) -> dict[str, Pair]:
    """Pairs of all cells that are compared with another, by cell id.

    If one of the two lacks utterances, the common ones are compared and `warn` is called. If reference texts differ,
    the two were measured on different corpora, and there is no pair.

    Args:
        scores: by cell id.
        references: cell id → id of the cell to compare with; one that is its own reference has no pair.
        warn: called for pairs that do not have all utterances in common.
        stopped: cells that lack utterances as they stopped early, of which nothing is said.
    """
    found = {}
    for cell_id, cell in scores.items():
        other_id = references.get(cell_id, cell_id)
        if other_id == cell_id or other_id not in scores:
            continue
        pair = _align(cell, scores[other_id])
        if pair is None:
            warn(f"cell {cell_id} is not compared with cell {other_id}: they have no utterance and text in common")
            continue
        missing = max(len(cell.sample.ids), len(scores[other_id].sample.ids)) - len(pair.sample.ids)
        if missing and cell_id not in stopped:
            warn(f"cell {cell_id} and cell {other_id}: {counted(missing, 'utterance')} of one not in the other")
        found[cell_id] = pair
    return found


def _align(cell: Scores, reference: Scores) -> Pair | None:
    if cell.sample == reference.sample:
        return Pair(cell.sample, cell.counts, reference.counts, (cell.events, reference.events))
    theirs = {key: index for index, key in enumerate(_keys(reference.sample))}
    mine = [index for index, key in enumerate(_keys(cell.sample)) if key in theirs]
    theirs_too = [theirs[key] for key in _keys(cell.sample) if key in theirs]
    sample = cell.sample.only(mine)
    if not mine or sample != reference.sample.only(theirs_too):
        return None
    both = cell.events.only(mine), reference.events.only(theirs_too)
    return Pair(sample, _selected(cell.counts, mine), _selected(reference.counts, theirs_too), both)


def _keys(sample: Sample) -> list[tuple[str, str]]:
    return list(zip(sample.splits, sample.ids, strict=True))


def _selected(counts: Counts, kept: Sequence[int]) -> Counts:
    return Counts(counts.words[kept], counts.chars[kept])
