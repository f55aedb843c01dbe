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

    def add(name: str, x: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0) + x.T @ x
        counts[name] = counts.get(name, 0) + len(x)

    _watch(model, block.layers, add, passes, until=block.name)
    return {name: total / counts[name] for name, total in sums.items()}


def maxima(
    model: nn.Module, names: Iterable[str], passes: Iterable[Callable[[nn.Module], object]]
) -> dict[str, torch.Tensor]:
    """The largest magnitude of each input of each layer, [inputs] in fp32.

    Args:
        model: on its device.
        names: the Linear modules.
        passes: each runs a batch of calibration data through a model.
    """
    found: dict[str, torch.Tensor] = {}

    def add(name: str, x: torch.Tensor) -> None:
        largest = x.abs().amax(0)
        found[name] = torch.maximum(found.get(name, largest), largest)

    _watch(model, names, add, passes)
    return found


def _watch(
    model: nn.Module,
    names: Iterable[str],
    add: Callable[[str, torch.Tensor], None],
    passes: Iterable[Callable[[nn.Module], object]],
    until: str | None = None,
) -> None:
    """Run the data, and give `add` the inputs [number, inputs] of each layer; a pass ends after the module `until`."""
    with _hooks(model, names, add, until), torch.no_grad():
        for run in passes:
            with suppress(EnoughError):
                run(model)


@contextmanager
def _hooks(
    model: nn.Module, names: Iterable[str], add: Callable[[str, torch.Tensor], None], until: str | None
) -> Iterator[None]:
    def watch(name: str) -> Any:
        def inputs_of(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            add(name, inputs[0].detach().flatten(0, -2).float())

        return model.get_submodule(name).register_forward_pre_hook(inputs_of)

    def stop(*_: object) -> None:
        raise EnoughError

    hooks = [watch(name) for name in names]
    hooks += [model.get_submodule(until).register_forward_hook(stop)] if until else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
