"""Casts around a module that computes in another floating-point dtype than the model."""

from __future__ import annotations

import torch
from torch import nn


def compute_in(module: nn.Module, inside: torch.dtype, outside: torch.dtype) -> None:
    """Cast the inputs and outputs of a module at every call. Its weights are not changed."""
    module.register_forward_pre_hook(lambda _, inputs: tuple(item.to(inside) for item in inputs))
    module.register_forward_hook(lambda _, inputs, output: output.to(outside))
