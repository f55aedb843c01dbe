"""Casts around a module that computes in another floating-point dtype than the model."""

from __future__ import annotations

import torch
from torch import nn


def compute_in(module: nn.Module, inside: torch.dtype, outside: torch.dtype) -> None:
    """Cast what goes into a module, and what comes out, whenever it is called. Its weights are left alone."""
    module.register_forward_pre_hook(lambda _, inputs: tuple(item.to(inside) for item in inputs))
    module.register_forward_hook(lambda _, inputs, output: output.to(outside))
