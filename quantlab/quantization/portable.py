"""Quantized PyTorch models as plain tensors for safetensors, and back.

Every tensor keeps its type and its bits: packed integers, scales, zero points, codebooks. What torch itself packs
(dynamic int8) is unpacked into integers, scales and zero points, and packed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import nn

from quantlab.quantization.tensors import Leaf, leaves, unpacked

Trait = bool | int | float | str  # what a module holds besides tensors
Dtype = Literal["float32", "float16", "bfloat16"]


@runtime_checkable
class Remembers(Protocol):
    """The file of a library whose modules hold more than their tensors tell."""

    def traits(self, module: nn.Module) -> dict[str, Trait]:
        """What calibration has decided of a module."""

    def adopt(self, module: nn.Module, traits: Mapping[str, Trait]) -> None:
        """Decide the same of a module that `setup` has just made.

        Raises:
            ExportError: these are no traits of this library.
        """


@dataclass(frozen=True)
class Portable:
    """A quantized model as it was before it first ran: bitsandbytes repacks its 4-bit weights then, on some CPUs."""

    modules: tuple[str, ...]  # that are quantized
    dtype: Dtype  # of the rest
    leaves: dict[str, Leaf] = field(repr=False)  # the model's own memory, not copies
    traits: dict[str, dict[str, Trait]]

    def tensors(self) -> dict[str, torch.Tensor]:
        """By name, on the CPU, each with memory of its own or the model's."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in plain(self.leaves).items()}


def portable(model: Any, names: tuple[str, ...], quantizer: object) -> Portable:
    """Hold on to what a model consists of.

    Args:
        model: quantized, not run yet.
        names: its modules that are.
        quantizer: what quantized it.
    """
    found: dict[str, dict[str, Trait]] = {}
    if isinstance(quantizer, Remembers):
        found = {name: quantizer.traits(model.get_submodule(name)) for name in names}
    return Portable(
        modules=names,
        dtype=cast(Dtype, str(model.dtype).removeprefix("torch.")),
        leaves={name: _held(leaf) for name, leaf in leaves(model).items()},
        traits={name: traits for name, traits in found.items() if traits},
    )


def _held(leaf: Leaf) -> Leaf:
    """The same memory under an object of our own: the library may give its parameter another."""
    return leaf.data.as_subclass(torch.Tensor) if isinstance(leaf, torch.Tensor) else leaf


def plain(found: Mapping[str, Leaf]) -> dict[str, torch.Tensor]:
    """Leaves as tensors: what torch has packed as integers, scales and zero points."""
    tensors: dict[str, torch.Tensor] = {}
    for name, leaf in found.items():
        if isinstance(leaf, torch.Tensor):
            tensors[name] = leaf
        else:
            parts = unpacked(leaf).items()
            tensors |= {f"{name}.{key}": part.int_repr() if part.is_quantized else part for key, part in parts}
    return tensors


def layout(tensor: torch.Tensor) -> str:
    """Type and shape, as the manifest has them."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def fill(model: nn.Module, values: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Give a model these tensors, in place: memory that there is gets them, parameters on meta become them.

    Args:
        model: built as `values` asks for, see `skeleton`.
        values: a tensor for each of `plain(leaves(model))`, of its shape.
        device: where parameters go that are on meta.
    """
    for name, leaf in leaves(model).items():
        if not isinstance(leaf, torch.Tensor):
            holder, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(holder), attribute, _packed(name, values))
        elif leaf.is_meta:
            _replace(model, leaf, nn.Parameter(values[name].to(device), requires_grad=False))
        else:
            # HQQ makes tensors that can be written to in this mode alone
            with torch.inference_mode() if leaf.is_inference() else torch.no_grad():
                leaf.copy_(values[name])


def _packed(name: str, values: Mapping[str, torch.Tensor]) -> torch.ScriptObject:
    """Parameters as `torch.ao.nn.quantized.dynamic.Linear` has them."""
    weight, scale, zero = (values[f"{name}.{key}"] for key in ("weight", "scale", "zero_point"))
    if scale.ndim:
        quantized = torch._make_per_channel_quantized_tensor(weight, scale, zero, 0)
    else:
        quantized = torch._make_per_tensor_quantized_tensor(weight, scale.item(), int(zero.item()))
    return torch.ops.quantized.linear_prepack(quantized, values.get(f"{name}.bias"))


def _replace(model: nn.Module, old: torch.Tensor, new: nn.Parameter) -> None:
    """In every module that has it: a tied parameter stays tied."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is old:
                module._parameters[name] = new
