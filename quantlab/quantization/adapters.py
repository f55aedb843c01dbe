"""LoRA: beside each quantized Linear a trained product of two thin matrices, by the library peft.

Source: Hu et al. 2021, arXiv 2106.09685; on quantized layers: QLoRA, Dettmers et al. 2023, arXiv 2305.14314.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

ADAPTER = "default"  # peft's name for the only adapter of a layer


def add_adapters(model: Any, names: Iterable[str], rank: int, seed: int = 0) -> None:
    """Put adapters beside quantized layers, in place; the model's output does not change until they are trained.

    Args:
        model: the quantized model.
        names: its quantized modules.
        rank: width of the matrices, which are [rank, inputs] and [outputs, rank].
        seed: of the first matrix; the second is zero.
    """
    import peft

    how = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(names), lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(how, model)
    for item in adapters(model):
        item.requires_grad_(False)
    model.eval()


def adapters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all adapters."""
    return [item for name, item in model.named_parameters() if ".lora_" in name]


def rank_of(module: nn.Module) -> int | None:
    """The rank of a module's adapter; None if it has none."""
    ranks: Any = getattr(module, "r", None)
    return ranks.get(ADAPTER) if isinstance(ranks, dict) else None


def below(module: Any) -> nn.Module:
    """The quantized layer that an adapter is beside; a module without adapter itself."""
    found: nn.Module = module if rank_of(module) is None else module.base_layer
    return found
