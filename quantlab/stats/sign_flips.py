"""One-sided paired test by exchanging two systems at random, and the loss that it finds.

If two systems are equally good, which of them made which errors is chance: exchanging them in any unit gives a result
that was as likely as the one seen. The share of exchanges with a difference at least as large is therefore an exact
p-value, whatever the distribution of the errors and however few units there are (Fisher 1935, "The Design of
Experiments", section 21; Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses"). Units are speakers, as in
`bootstrap`. The percentile bootstrap's p-value is approximate, and too small for few speakers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from quantlab.stats.bootstrap import SEED, Units

FLIPS = 10_000
POWER = 0.80
_AT_ONCE = 2**22  # random signs drawn at a time, 4 MiB

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def p_more(differences: npt.ArrayLike, units: Units, flips: int = FLIPS) -> float:
    """One-sided p of "the first system makes no more errors than the second".

    (k + 1) / (flips + 1), with k of the random exchanges at least as large as the measured sum (Phipson and Smyth
    2010).

    Args:
        differences: errors of the first − errors of the second, per utterance.
        units: units of the utterances, which are exchanged as a whole.
        flips: number of random exchanges.
    """
    sums = _sums(differences, units)
    sums = sums[sums != 0]  # an exchange does not change the others
    chance = np.random.default_rng(SEED)
    total, reached = sums.sum(), 0
    for start in range(0, flips, step := max(1, _AT_ONCE // max(1, len(sums)))):
        rows = min(step, flips - start)
        signs = 2.0 * chance.integers(2, size=(rows, len(sums)), dtype=np.int8) - 1
        reached += int((signs @ sums >= total).sum())
    return (reached + 1) / (flips + 1)


def _sums(differences: npt.ArrayLike, units: Units) -> Floats:
    return np.bincount(units.of_utterance, np.asarray(differences, dtype=np.float64), units.count).astype(np.float64)


class Power:
    """The power of `p_more` on a corpus, by normal approximation, for losses on top of the differences measured.

    A true loss adds errors, and so variance: each event that is lost or gained has m = V / Σ|d| errors in the mean
    (1 if nothing differed), with V the variance of the summed difference between units, so that x more errors add m x.
    """

    def __init__(self, differences: npt.ArrayLike, words: npt.ArrayLike, units: Units, level: float) -> None:
        """Prepare.

        Args:
            differences: errors of the first − errors of the second, per utterance.
            words: reference words per utterance, some.
            units: at least two.
            level: of the test, one-sided.
        """
        sums, lengths = _sums(differences, units), _sums(words, units)
        residuals = sums - sums.sum() / lengths.sum() * lengths
        differing = float(np.abs(np.asarray(differences)).sum())
        self.words = float(lengths.sum())
        self.variance = max(float((residuals**2).sum()) * units.count / (units.count - 1), differing)
        self.per_event = self.variance / differing if differing else 1.0
        self.bound = float(stdtrit(units.count - 1, 1 - level))

    def of(self, loss: float) -> float:
        """Probability that a true loss (fraction of the words) is found."""
        errors = loss * self.words
        deviation = math.sqrt(self.variance + self.per_event * errors)
        return float(ndtr(errors / deviation - self.bound)) if deviation else 0.0

    def findable(self, power: float = POWER) -> float:
        """The true loss (fraction) that is found with this probability: x = k √(V + m x), solved for x."""
        k = self.bound + float(ndtri(power))
        half = k * k * self.per_event / 2
        return (half + math.sqrt(half * half + k * k * self.variance)) / self.words
