"""A paired test of error rates that may be looked at while a cell is measured, and stop it.

Two questions are asked at every look, of d = WER(cell) − WER(baseline) over the utterances so far, which are the first
of a random order. *Worse or better*: d = 0 is rejected, two-sided. *Tied*: d ≥ margin is rejected, one-sided
(non-inferiority). Or only one is (`stops="beyond"`), whether the cell is worse by more than the margin: d ≤ margin is
rejected, one-sided at 2.5 %. With the boundaries of `spending`, each is answered wrongly as often as its level says,
however many looks there are. The share of information seen is the share of reference words. If speakers differ in d,
further utterances of the same speakers bring less than that share: the looks are more alike than is taken into account,
and a path crosses less often, never more (Slepian, Bell System Technical Journal 41:463, 1962).

**The statistic** is z = (d − d₀) / its standard deviation. The variance V of the summed differences D is that of a
ratio estimated from units (Cochran, "Sampling Techniques", 1977, section 6.3), which are speakers, or utterances where
`choose_units` says so; splits are no strata, which can only make it larger. Two estimates replace it where they are
larger, as differences of few utterances seem to vary less than they do: that of independent utterances, since a speaker
does not make them less alike, and Σ|d|, that of errors that come one by one (Poisson). Student's t with one less than
the number of units is turned into z of the same tail (Jennison and Turnbull 2000, section 4.4).

**Invented text.** A loop may add hundreds of errors to an utterance, and then varies so much that a model which is
plainly lost is never shown to be. So *worse*, and the lower end of the interval, come from differences that are cut at
the words of their utterance, as if its text were all wrong at most. They are never larger than d, so that whoever is
worse by them is worse. *Better*, *tied* and the upper end come in the same way from differences cut at −words: loops of
the baseline are no proof of the cell, and those of the cell count in full.

**Few differences are no certainty.** For d₀ ≠ 0 the variance is what d₀ would cause, not only what was seen: the score
test of Tango (Statistics in Medicine 17:891, 1998) in its Poisson limit. With m = V / Σ|d|, the errors of an effective
event, N = Σ|d| / m events were seen, B = D / m more losses than gains, and E = d₀ × words / m were to be expected. Then
z = (B − E) / √s with s = (N + √(N² + 4 E (E − B))) / 2, which is N for E = 0 and E = B. If nothing differed at all, s =
E: words are needed until a loss of d₀ would have shown, somewhat more of them than by the rule of three. For d₀ = 0, p
of either side is at least 2^(−units that differ), the limit of a sign test.

**Repeated intervals and p-values** (Jennison and Turnbull, JRSS B 51:305, 1989): the d₀ that no look may reject at the
level of the interval, and the level at which some look so far would just have rejected d = 0. They hold at all looks
together, wherever a cell stops, so that Holm's correction applies to these p-values as to others. One of m cells stops
if its p is at most alpha / m, which Holm's correction rejects whatever the other cells do.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from quantlab.stats.bootstrap import MIN_UNITS
from quantlab.stats.paired import ALPHA, Verdict
from quantlab.stats.spending import Floats, Spending, boundaries

Ints = npt.NDArray[np.integer]
Stops = Literal["verdict", "beyond"]

_LEAST_P, _MOST_P = 1e-15, 0.9999  # of a repeated p-value, other than 1
_LEVELS = 96  # between them, at which boundaries are computed; p is interpolated


@dataclass(frozen=True)
class Design:
    """What is asked at every look, and how the error is divided over the looks.

    *Worse* is spent evenly, as a format that is lost is so by far, and few looks show it; *tied* late, since a margin
    is narrow, and what is spent on looks that cannot yet show it would be missing at the last.
    """

    margin: float  # non-inferiority margin, fraction
    cells: int = 1  # of the grid, for the level at which a cell is worse or better
    spending: Spending = "pocock"  # of worse and better
    spending_tied: Spending = "obrien_fleming"  # of tied, and of the upper end; the lower end is spent as worse is
    stops: Stops = "verdict"  # beyond: worse means by more than the margin; better and tied are not asked


class Seen(NamedTuple):
    """What was seen up to each look, in the error unit.

    Arrays (…, looks); those of differences (2, …, looks), cut above at the words of the utterance, and cut below.
    """

    words: Floats  # of the references
    difference: Floats  # errors of the cell − errors of the baseline, not cut
    units: Floats  # with an utterance
    more: Floats  # D: the difference, cut
    differing: Floats  # Σ|d| over utterances
    variance: Floats  # V, of D
    units_differing: Floats  # units in which D is not 0


class Looks(NamedTuple):
    """The test at each look; arrays (…, looks), differences as fractions."""

    difference: Floats
    low: Floats  # repeated 95 % interval of the difference; infinite if there are too few units
    high: Floats
    z: Floats  # of no difference; 0 if there are too few units
    bound: Floats  # |z| at which the cell is worse or better
    worse: npt.NDArray[np.bool_]
    better: npt.NDArray[np.bool_]
    tied: npt.NDArray[np.bool_]

    def stops(self) -> Ints:
        """Number of the first look that answers a question, (…); the number of looks if none does."""
        answered = self.worse | self.better | self.tied
        return np.where(answered.any(axis=-1), answered.argmax(axis=-1), answered.shape[-1])

    def verdict(self, look: int) -> Verdict | None:
        """The answer of a look of one cell, None if it goes on; worse or better comes before tied, as in a report."""
        answers: tuple[tuple[Verdict, bool], ...] = (
            ("worse", self.worse[look]),
            ("better", self.better[look]),
            ("tied", self.tied[look]),
        )
        return next((word for word, given in answers if given), None)


def seen(differences: Ints, words: Ints, units: Ints | None, sizes: npt.ArrayLike) -> Seen:
    """Sum up what each look sees.

    Args:
        differences: errors of the cell − errors of the baseline, (…, utterances) in the order of measurement.
        words: reference words, the same shape.
        units: number of each utterance's speaker, the same shape; None: utterances are units.
        sizes: utterances up to each look, (looks,), increasing; words up to the first are needed.
    """
    until = np.asarray(sizes) - 1
    starts = np.append(0, until[:-1] + 1)
    cut = np.stack([np.minimum(differences, words), np.maximum(differences, -words)])

    def summed(values: npt.NDArray[Any]) -> Floats:
        parts = np.add.reduceat(values[..., : until[-1] + 1], starts, axis=-1, dtype=np.float64)
        return np.cumsum(parts, axis=-1)

    length, more, differing = summed(words), summed(cut), summed(np.abs(cut))
    units_seen = np.broadcast_to(np.asarray(sizes, dtype=np.float64), length.shape)
    units_differing = summed(cut != 0)
    squares = [summed(part) for part in _products(cut, words)]
    variance = np.maximum(_of_ratio(more / length, squares, units_seen), differing)
    if units is not None:
        lengths = _by_unit(words, units, until)
        by_unit = np.stack([_by_unit(part, units, until) for part in cut])
        units_seen = (lengths > 0).sum(axis=-1).astype(np.float64)
        units_differing = (by_unit != 0).sum(axis=-1).astype(np.float64)
        squares = [part.sum(axis=-1) for part in _products(by_unit, lengths)]
        variance = np.maximum(_of_ratio(more / length, squares, units_seen), variance)
    return Seen(length, summed(differences), units_seen, more, differing, variance, units_differing)


def _products(differences: npt.NDArray[Any], words: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    return differences**2, differences * words, words**2


def _of_ratio(rate: Floats, squares: list[Floats], units: Floats) -> Floats:
    """Variance of Σ (differences − rate × words), a sum of independent units; 0 for a single one."""
    residuals = squares[0] - 2 * rate * squares[1] + rate**2 * squares[2]
    return np.maximum(residuals, 0) * units / np.maximum(units - 1, 1)


def _by_unit(values: Ints, units: Ints, until: Ints) -> Floats:
    """Sums of each unit up to each look, (…, looks, units)."""
    count, looks = int(units.max()) + 1, len(until)
    look = np.searchsorted(until, np.arange(values.shape[-1]))
    rows = np.arange(values[..., 0].size).reshape(*values.shape[:-1], 1)
    place = ((rows * (looks + 1) + look) * count + units).ravel()  # beyond the last look: a row that is cut off
    length = rows.size * (looks + 1) * count
    parts = np.bincount(place, values.ravel(), length).reshape(*values.shape[:-1], looks + 1, count)
    return np.cumsum(parts[..., :-1, :], axis=-2)


def examine(seen: Seen, information: npt.ArrayLike, design: Design) -> Looks:
    """Ask both questions at every look.

    Args:
        seen: see there.
        information: share of the corpus's reference words up to each look, the shape of `seen`'s arrays or (looks,).
        design: see there.
    """
    size = np.where(seen.differing > 0, seen.variance / np.maximum(seen.differing, 1), 1.0)  # m
    events, excess, rate = seen.differing / size, seen.more / size, size / seen.words
    enough, freedom = seen.units >= MIN_UNITS, np.maximum(seen.units - 1, 1)
    limit = -ndtri(0.5 ** np.maximum(seen.units_differing, 1))  # z if all units that differ do so in one direction
    t = np.stack([excess[0], -excess[1]]) / np.sqrt(np.maximum(events, 1))  # no events: no excess
    sides = np.where(enough, np.minimum(-ndtri(stdtr(freedom, -np.maximum(t, 0))), limit), 0.0)  # worse, better
    bound = boundaries(information, ALPHA / design.cells, design.spending)
    below = boundaries(information, ALPHA, design.spending)
    above = boundaries(information, ALPHA, design.spending_tied)
    beyond = design.stops == "beyond"

    def width(bound: Floats) -> Floats:
        return np.where(enough, -stdtrit(freedom, ndtr(-bound)), np.inf)

    def with_0(bound: Floats) -> Floats:
        return np.where(bound > limit, 0.0, -np.inf)  # so few units cannot reject 0: it is in the interval

    low = -np.maximum(_upper(-excess[0], events[0], width(below)) * rate[0], with_0(below)[0])
    high = np.maximum(_upper(excess[1], events[1], width(above)) * rate[1], with_0(above)[1])
    return Looks(
        difference=seen.difference / seen.words,
        low=low,
        high=high,
        z=sides[0] - sides[1],  # one of them is 0
        bound=np.broadcast_to(bound, low.shape),
        worse=low > design.margin if beyond else sides[0] >= bound,
        better=(sides[1] >= bound) & (not beyond),
        tied=(high < design.margin) & (not beyond),
    )


def _upper(excess: Floats, events: Floats, wide: Floats) -> Floats:
    """The expected excess E that the score test just rejects: E − B = wide × √s; in events."""
    with np.errstate(invalid="ignore"):  # infinite: no interval
        wald = excess + wide * np.sqrt(events)
        p = wide**2 * (events + wide**2)  # (E − B)³ − p (E − B) − wide⁴ B = 0 if E > 0; three real roots, the largest
        cosine = np.clip(1.5 * wide**4 * excess / p * np.sqrt(3 / p), -1, 1)
        score = excess + 2 * np.sqrt(p / 3) * np.cos(np.arccos(cosine) / 3)
    return np.where(np.isinf(wide), np.inf, np.where(wald >= 0, score, wald))  # s is N between B and 0


def repeated_p(z: npt.ArrayLike, information: npt.ArrayLike, design: Design) -> Floats:
    """Repeated two-sided p-value of no difference at each look: the smallest so far, at least 1e-15.

    It is at most alpha / m exactly where z has come to the boundary of `examine`.

    Args:
        z: (…, looks).
        information: (looks,).
        design: as z was examined.
    """
    share = tuple(np.asarray(information, dtype=np.float64).tolist())
    levels, bounds = _levels(share, ALPHA / design.cells, design.spending)
    columns = zip(np.moveaxis(np.abs(z), -1, 0), bounds.T, strict=True)
    found = np.stack([np.interp(-column, -bound, levels) for column, bound in columns], axis=-1)
    return np.minimum.accumulate(np.exp(found), axis=-1)


@functools.lru_cache(maxsize=64)
def _levels(information: tuple[float, ...], level: float, spending: Spending) -> tuple[Floats, Floats]:
    """Logarithms of levels, `level` among them, increasing; and the boundaries at each, (levels, looks), decreasing."""
    levels = np.sort(np.append(np.linspace(np.log(_LEAST_P), np.log(_MOST_P), _LEVELS), np.log(level)))
    bounds = boundaries(np.tile(information, (len(levels), 1)), np.exp(levels), spending)
    return np.append(levels, 0.0), np.concatenate([bounds, np.zeros((1, len(information)))])
