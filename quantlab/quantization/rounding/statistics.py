"""Statistics of the inputs of layers, collected while calibration data run through a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BLOCK = re.compile(r"(.*\.layers\.\d+)\.")  # of transformers' Whisper


class EnoughError(Exception):
    """Raised in a forward pass once the layers of interest have run."""


@dataclass(frozen=True)
class Block:
    """A part of the model whose layers are rounded together, as none of them reads another's rounded output."""

    name: str  # of the module that contains the layers
    layers: tuple[str, ...]  # Linear modules
    number: int  # from 0
    of: int  # blocks in all

    @property
    def follows_encoder(self) -> bool:
        """Whether nothing in the encoder will change any more."""
        return "encoder" not in self.name.split(".")


def by_block(names: Sequence[str]) -> Iterator[Block]:
    """The Linear modules of each block of the model, in the order in which they run: encoder before decoder."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        found = BLOCK.match(name)
        blocks.setdefault(found[1] if found else name, []).append(name)
    for number, (block, layers) in enumerate(blocks.items()):
        yield Block(block, tuple(layers), number, len(blocks))


def hessians(
    model: nn.Module, block: Block, passes: Iterable[Callable[[nn.Module], object]]
) -> dict[str, torch.Tensor]:
    """The mean of x xᵀ over all inputs x of each layer of a block, [inputs, inputs] in fp32.

    Args:
        model: on its device.
        block: of the model; a pass ends after it.
        passes: each runs a batch of calibration data through a model.
    """
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    with _watched(model, block, sums, counts), torch.no_grad():
        for run in passes:
            with suppress(EnoughError):
                run(model)
    return {name: total / counts[name] for name, total in sums.items()}


@contextmanager
def _watched(model: nn.Module, block: Block, sums: dict[str, torch.Tensor], counts: dict[str, int]) -> Iterator[None]:
    def watch(name: str) -> Any:
        def add(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            sums[name] = sums.get(name, 0) + x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        return model.get_submodule(name).register_forward_pre_hook(add)

    def stop(*_: object) -> None:
        raise EnoughError

    hooks = [watch(name) for name in block.layers] + [model.get_submodule(block.name).register_forward_hook(stop)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
