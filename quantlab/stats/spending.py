"""Boundaries of group sequential tests by alpha spending.

A test that looks k times at growing data, each time at the 5 % level, is wrong far more often than in 5 % (Armitage,
McPherson and Rowe, JRSS A 132:235, 1969). Lan and DeMets (Biometrika 70:659, 1983) divide the error over the looks: a
function says how much is spent when a share t of the information has been seen, whatever the number of looks, and the
boundary at a look is where the probability of a first crossing there equals what is newly spent. It is found by the
recursive integration of Armitage, McPherson and Rowe (Jennison and Turnbull, "Group Sequential Methods", 2000, chapter
19): z √t is a Brownian motion, and its density among paths that have not crossed is carried from look to look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtr, ndtri

Floats = npt.NDArray[np.float64]
Spending = Literal["obrien_fleming", "pocock"]

_WIDEST = 10.0  # z beyond which no path is followed
_NODES = (32, 512)  # fewest and most of a quadrature
_NODES_PER_DEVIATION = 2.0  # of an increment
_STEPS = 60  # most Newton steps; they stop at rounding error after about six
_NOTHING = 1e-250  # error spent below which a look has no boundary


class _Spent(Protocol):
    def __call__(self, information: Floats, alpha: Floats) -> Floats:
        """Error spent on one side when a share of the information has been seen; alpha is spent at 1."""


def _obrien_fleming(information: Floats, alpha: Floats) -> Floats:
    """Little at first: boundaries like those of O'Brien and Fleming (Lan and DeMets 1983, α₁*)."""
    return 2 * ndtr(ndtri(alpha / 2) / np.sqrt(information))


def _pocock(information: Floats, alpha: Floats) -> Floats:
    """Evenly: boundaries almost constant in z, like Pocock's (Lan and DeMets 1983, α₂*)."""
    return alpha * np.log1p(np.expm1(1) * information)


_SPENT: Mapping[Spending, _Spent] = {"obrien_fleming": _obrien_fleming, "pocock": _pocock}


def boundaries(information: npt.ArrayLike, alpha: npt.ArrayLike, spending: Spending) -> Floats:
    """The boundaries on |z| of a two-sided test at each look; a look rejects if |z| is at least as large.

    One side of them is a one-sided test at alpha / 2: that a path crosses both sides is too rare to matter.

    Args:
        information: (…, looks), shares of the whole information, increasing, above 0 and at most 1.
        alpha: error of the whole test, scalar or of the other dimensions of `information`, between 0 and 1; half of it
            is spent on each side.
        spending: how the error is divided over the looks.

    Returns:
        (…, looks); infinite at a look where nothing is spent.

    Raises:
        ValueError: the shares are not increasing, or out of range.
    """
    share, alpha = np.asarray(information, dtype=np.float64), np.asarray(alpha, dtype=np.float64)
    shape = np.broadcast_shapes(share.shape, (*alpha.shape, share.shape[-1]))
    share = np.broadcast_to(share, shape).reshape(-1, shape[-1])
    if not ((share > 0) & (share <= 1)).all() or not (np.diff(share, axis=-1) > 0).all():
        raise ValueError("information must be shares above 0 and at most 1, each larger than the one before")
    one_side = np.broadcast_to(alpha[..., None] / 2, shape).reshape(share.shape)
    spent = np.diff(_SPENT[spending](share, one_side), axis=-1, prepend=0.0)
    return _solved(share, spent).reshape(shape)


def _solved(share: Floats, spent: Floats) -> Floats:
    """The boundary at each look, (tests, looks), at which `spent` of the paths cross there first."""
    found = np.empty_like(share)
    nodes = np.zeros((len(share), 1))  # all paths begin at 0
    mass = np.ones((len(share), 1))
    before = np.zeros(len(share))
    for look in range(share.shape[-1]):
        now = share[:, look]
        deviation = np.sqrt(now - before)
        found[:, look] = bound = _root(nodes, mass, deviation, np.sqrt(now), spent[:, look])
        if look + 1 < share.shape[-1]:
            width = np.minimum(bound, _WIDEST) * np.sqrt(now)
            nodes, mass = _carried(nodes, mass, deviation, width, np.sqrt(share[:, look + 1] - now))
            before = now
    return found


def _root(nodes: Floats, mass: Floats, deviation: Floats, scale: Floats, spent: Floats) -> Floats:
    """Where the probability of crossing equals `spent`, (tests,).

    Newton's method on the logarithm, which is concave in z: from a point beyond the root, it approaches from there.
    """
    known = spent > _NOTHING
    target = np.log(np.where(known, spent, 0.5))
    bound = -ndtri(np.exp(target))  # no path has crossed before: at least the root
    for _ in range(_STEPS):
        beyond = (nodes - (bound * scale)[:, None]) / deviation[:, None]
        parts = np.log(mass) + log_ndtr(beyond)
        largest = parts.max(axis=-1, keepdims=True)
        terms = np.exp(parts - largest)
        total = terms.sum(axis=-1)
        hazard = np.exp(-(beyond**2) / 2 - log_ndtr(beyond)) / np.sqrt(2 * np.pi)
        slope = -scale / deviation * (terms * hazard).sum(axis=-1) / total
        step = (np.log(total) + largest[:, 0] - target) / slope
        bound = bound - step
        if (np.abs(step) < 1e-10).all():
            break
    return np.where(known, bound, np.inf)


def _carried(nodes: Floats, mass: Floats, deviation: Floats, width: Floats, following: Floats) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes from −width to width, and the probability of the paths that come there, (tests, nodes).

    There are some nodes per standard deviation of the following increment, which the density is integrated with.
    """
    wanted = _NODES_PER_DEVIATION * float((2 * width / following).max())
    points, weights = np.polynomial.legendre.leggauss(int(np.clip(np.ceil(wanted), *_NODES)))
    new = width[:, None] * points
    step = (new[:, :, None] - nodes[:, None, :]) / deviation[:, None, None]
    density = np.einsum("tnm,tm->tn", np.exp(-(step**2) / 2), mass) / (np.sqrt(2 * np.pi) * deviation[:, None])
    return new, np.maximum(density * width[:, None] * weights, np.finfo(np.float64).tiny)
