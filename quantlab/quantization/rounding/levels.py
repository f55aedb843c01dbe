"""Affine levels of groups of weights: w ≈ (code − zero) · scale, one scale and zero point per row and group."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_SHRINKS = torch.linspace(1.0, 0.4, 31)  # of the range of a group, tried by `fitted`
_SMALLEST_RANGE = 1e-8  # of a group of equal weights


@dataclass(frozen=True)
class Levels:
    """Scales and zero points of groups; any shape, with 1 in place of the weights of a group."""

    scale: torch.Tensor
    zero: torch.Tensor
    highest: int  # code; the lowest is 0

    def codes(self, weights: torch.Tensor) -> torch.Tensor:
        """The nearest codes, as floats."""
        return (weights / self.scale + self.zero).round().clamp(0, self.highest)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        """The weights that codes stand for."""
        return (codes - self.zero) * self.scale


def spanning(weights: torch.Tensor, highest: int) -> Levels:
    """Levels from the smallest to the largest weight of each group, the last dimension."""
    low, high = weights.amin(-1, keepdim=True), weights.amax(-1, keepdim=True)
    scale = (high - low).clamp(min=_SMALLEST_RANGE) / highest
    return Levels(scale, -low / scale, highest)


def fitted(weights: torch.Tensor, highest: int, importance: torch.Tensor) -> Levels:
    """Levels over that part of the range of each group with the least squared error, weighted by `importance`.

    Args:
        weights: [..., weights of a group].
        highest: code.
        importance: [weights of a group], of each input: the mean of its square.
    """
    whole = spanning(weights, highest)
    best, least = whole, _error(whole, weights, importance)
    middle = (weights.amin(-1, keepdim=True) + weights.amax(-1, keepdim=True)) / 2
    for shrink in _SHRINKS[1:].tolist():
        scale = whole.scale * shrink
        tried = Levels(scale, highest / 2 - middle / scale, highest)
        error = _error(tried, weights, importance)
        better = error < least
        least = torch.where(better, error, least)
        best = Levels(torch.where(better, tried.scale, best.scale), torch.where(better, tried.zero, best.zero), highest)
    return best


def _error(levels: Levels, weights: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    return ((levels.values(levels.codes(weights)) - weights).square() * importance).sum(-1, keepdim=True)
