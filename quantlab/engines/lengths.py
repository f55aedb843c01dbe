"""Inputs of models without a window: utterances of any length, padded so that padding changes nothing.

Some models normalise over time with GroupNorm, which has no mask: in a padded batch it would count the padding, and an
utterance would be heard differently beside a longer one. Within `lengths_of` it counts each utterance alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from quantlab.data import SplitFeatures


@dataclass(frozen=True)
class Inputs:
    """A batch on the model's device and in its dtype."""

    values: torch.Tensor  # (utterances, samples) or (utterances, frames, mel bins), padded with zeros
    mask: torch.Tensor  # (utterances, samples or frames), true where there is no padding
    lengths: torch.Tensor  # (utterances,), samples or frames without padding, on the CPU


def inputs_on(model: Any, device: torch.device, speech: SplitFeatures) -> Inputs:
    """The inputs of a batch, padded to its longest utterance."""
    found = speech.recordings
    lengths = torch.tensor([item.shape[1] for item in found])
    longest = int(lengths.max())
    values = np.stack([np.pad(item, ((0, 0), (0, longest - item.shape[1]))) for item in found])
    of_model = torch.from_numpy(values[:, 0] if speech.kind == "samples" else values.transpose(0, 2, 1).copy())
    mask = torch.arange(longest) < lengths[:, None]
    return Inputs(of_model.to(device, model.dtype), mask.to(device), lengths)


@contextlib.contextmanager
def lengths_of(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    """Within the block, GroupNorm over time counts only what is not padding."""
    found = list(_over_time(model)) if int(inputs.lengths.min()) < inputs.mask.shape[1] else []
    for norm, convolution in found:
        width, stride = convolution.kernel_size[0], convolution.stride[0]
        frames = (inputs.lengths - width) // stride + 1
        norm.forward = partial(_masked, norm, frames.clamp(min=1).to(inputs.values.device))
    try:
        yield
    finally:
        for norm, _ in found:
            del norm.forward  # that of the class again


def _over_time(model: nn.Module) -> Iterator[tuple[Any, nn.Conv1d]]:
    """Each GroupNorm of the front end with the convolution before it, which reads samples."""
    for module in model.modules():
        before: nn.Conv1d | None = None
        for child in module.children():
            if isinstance(child, nn.GroupNorm) and before is not None and before.in_channels == 1:
                yield child, before
            before = child if isinstance(child, nn.Conv1d) and child.in_channels == 1 else before


def _masked(norm: nn.GroupNorm, frames: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """GroupNorm of (utterances, channels, frames), each over its first `frames`."""
    rows = [
        functional.pad(
            functional.group_norm(row[None, :, :count], norm.num_groups, norm.weight, norm.bias, norm.eps),
            (0, hidden.shape[2] - count),
        )
        for row, count in zip(hidden, frames.tolist(), strict=True)
    ]
    return torch.cat(rows)
