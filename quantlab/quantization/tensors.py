"""Tensors that a module holds, with dtype, bytes and address.

Size means the bytes of all unique tensors of a model, wherever its modules keep them (parameters, buffers, plain
attributes, dictionaries, inner tensors of tensor subclasses, torch's packed objects), each address once. Python
numbers and code do not count.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

FP32_BYTES = torch.float32.itemsize
LIBRARY_OBJECTS = ("torch", "transformers")  # hooks, configurations: no tensors to compute with

Leaf = torch.Tensor | torch.ScriptObject  # a plain tensor, or torch's packed parameters


@dataclass(frozen=True)
class Stored:
    """Description of a tensor in a module, without its values or a reference to it."""

    name: str  # relative to the module, e.g. `weight._scale`
    dtype: str
    bytes: int
    address: Hashable  # equal for tensors that share memory

    @property
    def is_floating_point(self) -> bool:
        """Whether it holds floating-point numbers of any width."""
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def looks(self) -> tuple[str, str, int]:
        """The key for detecting changes, without the address, which changes when a model is moved."""
        return self.name, self.dtype, self.bytes


@dataclass(frozen=True)
class Held:
    """A module with its own tensors; for a Linear, including all submodules."""

    class_name: str
    tensors: tuple[Stored, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the unique tensors."""
        return sum(_unique(self.tensors).values())

    def differs(self, other: Held) -> bool:
        """Whether class, names, dtypes or sizes differ."""
        return self.class_name != other.class_name or self._looks() != other._looks()

    def _looks(self) -> list[tuple[str, str, int]]:
        return sorted(item.looks for item in self.tensors)

    def __str__(self) -> str:
        dtypes = sorted({item.dtype for item in self.tensors})
        return f"{self.class_name} in {', '.join(dtypes) or 'nothing'}"


def held_below(module: nn.Module) -> Held:
    """A module with all its submodules; each address once, under the first name found."""
    found: dict[Hashable, Stored] = {}
    for prefix, part in module.named_modules():
        for item in own_tensors(part, prefix):
            found.setdefault(item.address, item)
    return Held(type(module).__name__, tuple(found.values()))


def bytes_by_dtype(model: nn.Module) -> dict[str, int]:
    """Bytes of all unique tensors of a model."""
    return sum_by_dtype([item for module in model.modules() for item in own_tensors(module)])


def sum_by_dtype(tensors: Sequence[Stored]) -> dict[str, int]:
    """Bytes of tensors, each address once."""
    dtypes = {item.address: item.dtype for item in tensors}
    totals: dict[str, int] = {}
    for address, count in _unique(tensors).items():
        totals[dtypes[address]] = totals.get(dtypes[address], 0) + count
    return dict(sorted(totals.items()))


def _unique(tensors: Iterable[Stored]) -> dict[Hashable, int]:
    """Address → bytes; of views with the same start, the longest."""
    sizes: dict[Hashable, int] = {}
    for item in tensors:
        sizes[item.address] = max(item.bytes, sizes.get(item.address, 0))
    return sizes


def bytes_in_fp32(model: nn.Module) -> int:
    """Bytes of a model with every floating-point tensor in fp32."""
    tensors = [*model.parameters(), *model.buffers()]  # both list tied tensors once
    return sum(item.numel() * FP32_BYTES if item.is_floating_point() else item.nbytes for item in tensors)


def own_tensors(module: nn.Module, prefix: str = "") -> Iterator[Stored]:
    """Tensors in a module's parameters, buffers and attributes, without those of its submodules."""
    for name, leaf in own_leaves(module, prefix):
        if isinstance(leaf, torch.Tensor):
            yield Stored(name, _dtype(leaf), leaf.numel() * leaf.itemsize, _address(leaf))
        else:
            yield from _packed(leaf, name)


def leaves(model: nn.Module) -> dict[str, Leaf]:
    """All tensors of a model by dotted path, the same memory once.

    Of shared tensors only parameters are listed once, under the first name, as they are tied.
    """
    found: dict[str, Leaf] = {}
    tied: set[int] = set()
    for prefix, module in model.named_modules():
        here: set[Hashable] = set()
        for name, leaf in own_leaves(module, prefix):
            where = _address(leaf) if isinstance(leaf, torch.Tensor) else id(leaf)
            if where not in here and id(leaf) not in tied:
                found[name] = leaf
            here.add(where)
            tied |= {id(leaf)} if isinstance(leaf, nn.Parameter) else set()
    return found


def own_leaves(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Leaf]]:
    """The objects behind `own_tensors`, each with its path."""
    start = f"{prefix}." if prefix else ""
    seen: set[int] = set()
    for key, value in vars(module).items():
        if key in ("_parameters", "_buffers"):
            for name, tensor in value.items():
                yield from _inside(tensor, start + name, seen)
        elif key != "_modules":
            yield from _inside(value, start + key, seen)


def _inside(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Leaf]]:
    """Tensors reachable from a value, but not through a module, which could lead anywhere."""
    if id(value) in seen or isinstance(value, (nn.Module, type, str, bytes)) or callable(value):
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield from _tensor(value, name, seen)
    elif isinstance(value, torch.ScriptObject):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _inside(item, f"{name}.{key}", seen)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _inside(item, f"{name}.{index}", seen)
    elif hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in LIBRARY_OBJECTS:
        for key, item in vars(value).items():
            yield from _inside(item, f"{name}.{key}", seen)


def _tensor(tensor: torch.Tensor, name: str, seen: set[int]) -> Iterator[tuple[str, Leaf]]:
    """A plain tensor with its attributes (bitsandbytes), or the inner tensors of a wrapper (quanto)."""
    if hasattr(tensor, "__tensor_flatten__"):
        inner, _ = tensor.__tensor_flatten__()
        for key in inner:
            yield from _inside(getattr(tensor, key), f"{name}.{key}", seen)
        return
    yield name, tensor
    for key, item in vars(tensor).items():
        yield from _inside(item, f"{name}.{key}", seen)


def _address(tensor: torch.Tensor) -> Hashable:
    """The address of the first element; the object itself if it has no memory (meta or empty tensors)."""
    pointer = 0 if tensor.is_meta else tensor.data_ptr()
    return (str(tensor.device), pointer) if pointer else id(tensor)


def _packed(value: torch.ScriptObject, name: str) -> Iterator[Stored]:
    """The content of torch's packed parameters as tensors."""
    for key, tensor in unpacked(value).items():
        yield Stored(f"{name}.{key}", _dtype(tensor), tensor.numel() * tensor.itemsize, (id(value), key))


def unpacked(value: torch.ScriptObject) -> dict[str, torch.Tensor]:
    """Weight, bias, scales and zero points of torch's packed parameters; empty for other objects.

    Unpacking copies, so each tensor counts as the object's own; an engine's additions (FBGEMM's column offsets) are
    not visible.
    """
    if not value._has_method("unpack"):  # type: ignore[attr-defined]
        return {}
    weight, bias = value.unpack()  # type: ignore[attr-defined]
    parts = {"weight": weight, "bias": bias, **_quantization_parameters(weight)}
    return {key: tensor for key, tensor in parts.items() if tensor is not None}


def _quantization_parameters(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor(weight.q_scale(), dtype=torch.float64)
        return {"scale": scale, "zero_point": torch.tensor(weight.q_zero_point())}
    return {"scale": weight.q_per_channel_scales(), "zero_point": weight.q_per_channel_zero_points()}


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
