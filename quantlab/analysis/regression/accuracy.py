"""Is the error rate worse than the baseline's, on the same utterances?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from quantlab.analysis.evidence import bounded
from quantlab.analysis.pairs import Pair
from quantlab.config.schema import StatsConfig
from quantlab.records.bundle import Packed, Scored
from quantlab.stats.estimate import Estimate
from quantlab.stats.paired import ALPHA, holm, noninferior
from quantlab.stats.rates import Counts, Sample, resample
from quantlab.stats.sign_flips import Power, p_more
from quantlab.util.counted import counted
from quantlab.util.languages import ErrorUnit

Outcome = Literal["pass", "fail", "cannot tell"]
ASKED = 0.01  # the loss, one point, for which the power is stated


@dataclass(frozen=True)
class Accuracy:
    """WER now − WER of the baseline over all splits; fractions."""

    difference: Estimate
    before: float
    now: float
    splits: dict[str, tuple[float | None, float | None]]  # WER before and now
    p: float  # one-sided, of "it is not worse"
    p_holm: float
    margin: float
    findable: float | None  # loss that is found with a probability of 80 %; None with too few units
    power: float | None  # probability that a loss of ASKED is found
    unit: Literal["speaker", "utterance"]
    units: int
    utterances: int
    words: int
    texts_changed: int
    error_unit: ErrorUnit

    @property
    def worse(self) -> bool:
        """Whether a loss is shown, however small."""
        return self.p_holm < ALPHA and self.difference.value > 0

    @property
    def within(self) -> bool:
        """Whether a loss of the margin or more is excluded."""
        return noninferior(self.difference.ci95[1] if self.difference.ci95 else None, self.margin)

    @property
    def outcome(self) -> Outcome:
        """A loss below the margin passes, even if it is shown; a loss that may be larger fails if it is shown."""
        return "pass" if self.within else "fail" if self.worse else "cannot tell"


def why_not(before: Packed, now: Packed) -> str | None:
    """Why the error rates of two measurements cannot be compared; None if they can."""
    one, other = before.record, now.record
    for name in ("normaliser", "error_unit", "scorer"):
        was, now_is = getattr(one, name), getattr(other, name)
        if was != now_is:
            return f"scored differently: {name} {was} in the baseline, {now_is} now; score one again: quantlab rescore"
    old, new = set(before.utterances.keys), set(now.utterances.keys)
    if old != new:
        extra = counted(len(new - old), "utterance")
        return f"other utterances: {len(old - new)} of {len(old):,} of the baseline are missing, {extra} added"
    theirs, mine = _rows(before.utterances, before.utterances.keys), _rows(now.utterances, before.utterances.keys)
    if texts := sum(a != b for a, b in zip(theirs.reference, mine.reference, strict=True)):
        return f"{counted(texts, 'reference text')} of {len(old):,} differ from the baseline's"
    if (theirs.words, theirs.chars) != (mine.words, mine.chars):
        return "the same references have other numbers of words: the normaliser has changed; make the baseline again"
    if not sum(mine.words):
        return "the references have no words"
    return None


def compare(cells: list[tuple[Packed, Packed]], margin: float) -> list[Accuracy]:
    """Compare pairs (before, now) for which `why_not` is None; Holm's correction is over all of them.

    Args:
        cells: pairs of measurements.
        margin: fraction.
    """
    found = [_compared(before, now, margin, ALPHA / len(cells)) for before, now in cells]
    corrected = holm([item.p for item in found])
    return [replace(item, p_holm=p) for item, p in zip(found, corrected, strict=True)]


def _compared(before: Packed, now: Packed, margin: float, level: float) -> Accuracy:
    old, new = before.utterances, _rows(now.utterances, before.utterances.keys)
    sample = _sample(new)
    pair = Pair(sample, _counts(new), _counts(old))
    differences = Counts(pair.cell.words - pair.reference.words, pair.cell.chars - pair.reference.chars)
    resamples = now.record.setting("stats.resamples") or StatsConfig().resamples
    [result] = resample(sample, [differences], resamples)
    change = bounded(pair, result).pooled.wer
    assert change is not None  # as there are reference words
    units, words = sample.units, sum(sample.words)
    p = p_more(differences.words, units) if units.enough else 1.0
    power = Power(differences.words, sample.words, units, level) if units.enough else None
    return Accuracy(
        difference=change,
        before=sum(old.errors) / words,
        now=sum(new.errors) / words,
        splits={
            name: (before.record.splits[name].wer, now.record.splits[name].wer) for name in dict.fromkeys(sample.splits)
        },
        p=p,
        p_holm=p,
        margin=margin,
        findable=power.findable() if power else None,
        power=power.of(ASKED) if power else None,
        unit=units.kind,
        units=units.count,
        utterances=len(sample.ids),
        words=words,
        texts_changed=sum(a != b for a, b in zip(old.hypothesis, new.hypothesis, strict=True)),
        error_unit=now.record.error_unit,
    )


def _rows(scored: Scored, keys: tuple[tuple[str, str], ...]) -> Scored:
    """The utterances in the order of these keys."""
    if scored.keys == keys:
        return scored
    place = {key: index for index, key in enumerate(scored.keys)}
    order = [place[key] for key in keys]
    columns = {name: tuple(getattr(scored, name)[index] for index in order) for name in Scored.model_fields}
    return Scored.model_validate(columns)


def _sample(rows: Scored) -> Sample:
    speakers = tuple(None if number is None else str(number) for number in rows.speaker)
    return Sample(splits=rows.split, ids=rows.id, speakers=speakers, words=rows.words, chars=rows.chars)


def _counts(rows: Scored) -> Counts:
    return Counts(np.array(rows.errors, dtype=np.int64), np.array(rows.char_errors, dtype=np.int64))
