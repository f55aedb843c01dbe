"""Quantized PyTorch models as plain tensors for safetensors, and back.

Every tensor keeps its dtype and bits: packed integers, scales, zero points, codebooks. torch's packed objects (dynamic
int8) are unpacked into integers, scales and zero points, and packed again on loading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import nn

from quantlab.config.types import Dtype
from quantlab.quantization.adapters import below
from quantlab.quantization.base import Quantizer, Trait, layer_of
from quantlab.quantization.tensors import Leaf, leaves, unpacked


@runtime_checkable
class Remembers(Protocol):
    """A layer that has state besides tensors."""

    def traits(self, module: nn.Module) -> dict[str, Trait]:
        """The non-tensor state of a module, set by calibration."""

    def adopt(self, module: nn.Module, traits: Mapping[str, Trait]) -> None:
        """Restore this state in a module created by `setup`.

        Raises:
            ExportError: the traits are not those of this library.
        """


@dataclass(frozen=True)
class Portable:
    """A quantized model before its first run, since bitsandbytes then repacks 4-bit weights on some CPUs."""

    modules: tuple[str, ...]  # quantized modules
    dtype: Dtype  # dtype of the rest
    leaves: dict[str, Leaf] = field(repr=False)  # the model's memory, not copies
    traits: dict[str, dict[str, Trait]]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Tensors by name, on the CPU; they may share the model's memory but not each other's."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in plain(self.leaves).items()}


def portable(model: Any, names: tuple[str, ...], quantizer: Quantizer) -> Portable:
    """Keep references to all tensors of a model.

    Args:
        model: the quantized model, not run yet.
        names: its quantized modules.
        quantizer: the quantizer used.
    """
    found: dict[str, dict[str, Trait]] = {}
    if isinstance(layer := layer_of(quantizer), Remembers):
        found = {name: layer.traits(below(model.get_submodule(name))) for name in names}
    return Portable(
        modules=names,
        dtype=cast(Dtype, str(model.dtype).removeprefix("torch.")),
        leaves={name: _same_memory(leaf) for name, leaf in leaves(model).items()},
        traits={name: traits for name, traits in found.items() if traits},
    )


def _same_memory(leaf: Leaf) -> Leaf:
    """The same memory in a new tensor object, as the library may replace the data of its parameter."""
    return leaf.data.as_subclass(torch.Tensor) if isinstance(leaf, torch.Tensor) else leaf


def plain(found: Mapping[str, Leaf]) -> dict[str, torch.Tensor]:
    """Leaves as plain tensors; torch's packed objects become integers, scales and zero points."""
    tensors: dict[str, torch.Tensor] = {}
    for name, leaf in found.items():
        if isinstance(leaf, torch.Tensor):
            tensors[name] = leaf
        else:
            parts = unpacked(leaf).items()
            tensors |= {f"{name}.{key}": part.int_repr() if part.is_quantized else part for key, part in parts}
    return tensors


def layout(tensor: torch.Tensor) -> str:
    """Dtype and shape, as written in the manifest."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def fill(model: nn.Module, values: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Load tensors into a model in place: existing memory is overwritten, meta parameters are replaced.

    Args:
        model: a model with matching structure, see `skeleton`.
        values: a tensor for each of `plain(leaves(model))`, of its shape.
        device: device of parameters that are on meta.
    """
    for name, leaf in leaves(model).items():
        if not isinstance(leaf, torch.Tensor):
            holder, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(holder), attribute, _packed(name, values))
        elif leaf.is_meta:
            _replace(model, leaf, nn.Parameter(values[name].to(device), requires_grad=False))
        else:
            # HQQ creates inference tensors, which can only be written in this mode
            with torch.inference_mode() if leaf.is_inference() else torch.no_grad():
                leaf.copy_(values[name])


def _packed(name: str, values: Mapping[str, torch.Tensor]) -> torch.ScriptObject:
    """Packed parameters of `torch.ao.nn.quantized.dynamic.Linear`."""
    weight, scale, zero = (values[f"{name}.{key}"] for key in ("weight", "scale", "zero_point"))
    if scale.ndim:
        quantized = torch._make_per_channel_quantized_tensor(weight, scale, zero, 0)
    else:
        quantized = torch._make_per_tensor_quantized_tensor(weight, scale.item(), int(zero.item()))
    return torch.ops.quantized.linear_prepack(quantized, values.get(f"{name}.bias"))


def _replace(model: nn.Module, old: torch.Tensor, new: nn.Parameter) -> None:
    """Replace a parameter or buffer in every module that has it, so that tied parameters stay tied."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is old:
                module._parameters[name] = new
        for name, buffer in module._buffers.items():
            if buffer is old:
                module._buffers[name] = new.data
