"""SmoothQuant: ranges of activations, which differ by channel, are moved into the weights in part.

Source: Xiao et al. 2023, arXiv 2211.10438, section 4, equation 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def smoothing_scale(weights: Sequence[torch.Tensor], largest: torch.Tensor, smoothing: float) -> torch.Tensor:
    """The scale by which to divide inputs, and multiply the weights that read them: max|x|ᵃ / max|w|¹⁻ᵃ.

    Args:
        weights: matrices [outputs, inputs] that read the same inputs.
        largest: [inputs], the largest magnitude of each input on the calibration data.
        smoothing: a; 1 makes the ranges of all inputs equal, 0 those of the weights that read them.

    Returns:
        [inputs], with a geometric mean of 1, as only ratios matter; 1 for an input that is 0 in all data or weights.
    """
    of_weights = torch.cat([weight.float() for weight in weights]).abs().amax(0)
    known = (largest > 0) & (of_weights > 0)
    logarithm = smoothing * largest[known].log() - (1 - smoothing) * of_weights[known].log()
    scale = torch.ones_like(of_weights)
    scale[known] = (logarithm - logarithm.mean()).exp()
    return scale
