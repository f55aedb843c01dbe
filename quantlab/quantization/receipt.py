"""Receipt: evidence of quantization, read from the model before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from quantlab.config.types import Dtype
from quantlab.quantization.adapters import below, rank_of
from quantlab.quantization.base import Converted, Layer, Quantizer, layer_of
from quantlab.quantization.embedding import SharedEmbedding
from quantlab.quantization.tensors import (
    Held,
    bytes_by_dtype,
    bytes_in_fp32,
    held_below,
    own_tensors,
    sum_by_dtype,
)
from quantlab.records.schema import ModuleReceipt, Receipt


@dataclass(frozen=True)
class Snapshot:
    """A model before quantization."""

    linears: dict[str, Held]
    others: dict[str, Held]
    baseline_bytes: int  # with every floating-point tensor in fp32
    params: int  # tied parameters counted once

    def with_others(self, names: Iterable[str]) -> Snapshot:
        """A snapshot that also treats these other modules as quantizable."""
        moved = {name: self.others[name] for name in names if name in self.others}
        others = {name: held for name, held in self.others.items() if name not in moved}
        return replace(self, linears=self.linears | moved, others=others)


def snapshot(model: nn.Module) -> Snapshot:
    """Take a snapshot of a model before quantization."""
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    modules = dict(model.named_modules())
    return Snapshot(
        linears={name: held_below(modules[name]) for name in linears},
        others=_others(model, linears),
        baseline_bytes=bytes_in_fp32(model),
        params=sum(parameter.numel() for parameter in model.parameters()),
    )


def read(
    before: Snapshot,
    model: nn.Module,
    names: Iterable[str],
    skipped: dict[str, str],
    quantizer: Quantizer,
    dtype: Dtype = "float32",
) -> Receipt:
    """Compare a model after quantization with its snapshot.

    Args:
        before: snapshot of the same model.
        model: the model after quantization.
        names: modules that should be quantized.
        skipped: modules that should not, with the reason.
        quantizer: the quantizer used.
        dtype: dtype of all floating-point tensors outside of `names`. Other tensors of a quantized module (scales,
            biases) are up to its library, and listed.

    Returns:
        A receipt with `verified` false and all modules named in `problems`, if one of `names` is unchanged, not
        quantized or not smaller, or if any other module changed or is not in `dtype`.
    """
    layer = layer_of(quantizer)
    modules = dict(model.named_modules())
    shared = {name for name, module in modules.items() if isinstance(module, SharedEmbedding)}
    wanted = frozenset(names) | shared
    before = before.with_others(shared)
    after = {name: _module_tensors(modules[name]) for name in before.linears if name in modules}
    receipts = [
        _module_receipt(name, held, after[name], modules[name], skipped.get(name), layer)
        for name, held in before.linears.items()
        if name in after
    ]
    problems = [
        problem
        for name, held in before.linears.items()
        if (problem := _problem(name, held, after.get(name), name in wanted, modules, layer))
    ]
    others = _others(model, before.linears)
    problems += _changed_others(before.others, others)
    unquantized = others | {name: held for name, held in after.items() if name not in wanted}
    problems += _dtype_problems(before.linears | before.others, unquantized, dtype)
    return _receipt(before, receipts, problems, bytes_by_dtype(model))


def _receipt(
    before: Snapshot, receipts: Sequence[ModuleReceipt], problems: Sequence[str], by_dtype: dict[str, int]
) -> Receipt:
    return Receipt(
        modules=tuple(receipts),
        modules_total=len(receipts),
        modules_quantized=sum(item.quantized for item in receipts),
        bytes_by_dtype=by_dtype,
        size_bytes=sum(by_dtype.values()),
        baseline_bytes=before.baseline_bytes,
        params=before.params,
        verified=not problems,
        problems=tuple(problems),
    )


def read_converted(before: Snapshot, converted: Converted, names: Iterable[str], skipped: dict[str, str]) -> Receipt:
    """Like `read`, for a model in another engine; the rest of the model is not compared."""
    wanted = frozenset(names)
    receipts, problems = [], list(converted.problems)
    for name, was in before.linears.items():
        after = converted.linears.get(name)
        if after is None:
            problems.append(f"{name} is not in the converted model")
            continue
        smaller = after.bytes < was.bytes
        if smaller != (name in wanted):
            problems.append(f"{name} {'shrank although it should not' if smaller else 'did not shrink'}: now {after}")
        receipts.append(
            ModuleReceipt(
                name=name,
                class_before=was.class_name,
                class_after=after.class_name,
                dtypes={item.name: item.dtype for item in after.tensors},
                bytes_before=was.bytes,
                bytes_after=after.bytes,
                kernel=converted.kernel if smaller else None,
                quantized=smaller,
                skipped=skipped.get(name),
            )
        )
    held = [item for linear in converted.linears.values() for item in linear.tensors]
    return _receipt(before, receipts, problems, sum_by_dtype([*held, *converted.others]))


def smaller(before: Snapshot, converted: Converted) -> list[str]:
    """The Linear modules that an engine holds in fewer bytes than in fp32."""
    held = converted.linears
    return [name for name, was in before.linears.items() if name in held and held[name].bytes < was.bytes]


def size_bytes(model: nn.Module) -> int:
    """Bytes of all unique tensors of a model, quantized or not."""
    return sum(bytes_by_dtype(model).values())


def _module_tensors(module: nn.Module) -> Held:
    """The tensors of a module; a shared embedding has those of the output projection that it reads."""
    return (
        replace(held_below(module.head), class_name="SharedEmbedding")
        if isinstance(module, SharedEmbedding)
        else (held_below(module))
    )


def _quantized(module: nn.Module, layer: Layer) -> bool:
    return layer.is_quantized(module.head if isinstance(module, SharedEmbedding) else below(module))


def _kernel(module: nn.Module, layer: Layer) -> str | None:
    if isinstance(module, SharedEmbedding):
        return "rows of proj_out, looked up"
    rank = rank_of(module)
    return layer.kernel(below(module)) if rank is None else f"{layer.kernel(below(module))} + LoRA, rank {rank}"


def _module_receipt(
    name: str, before: Held, after: Held, module: nn.Module, skipped: str | None, layer: Layer
) -> ModuleReceipt:
    quantized = after.differs(before) and _quantized(module, layer)
    return ModuleReceipt(
        name=name,
        class_before=before.class_name,
        class_after=after.class_name,
        dtypes={item.name: item.dtype for item in after.tensors},
        bytes_before=before.bytes,
        bytes_after=after.bytes,
        kernel=_kernel(module, layer) if quantized else None,
        quantized=quantized,
        bits=_stored_bits(module, layer) if quantized else None,
        skipped=skipped,
    )


def _stored_bits(module: nn.Module, layer: Layer) -> float | None:
    tell = getattr(layer, "stored_bits", None)
    return None if tell is None else tell(module.head if isinstance(module, SharedEmbedding) else below(module))


def _problem(
    name: str,
    before: Held,
    after: Held | None,
    wanted: bool,
    modules: dict[str, nn.Module],
    layer: Layer,
) -> str | None:
    if after is None:
        return f"{name} is gone"
    if not wanted:
        return f"{name} changed from {before} to {after} although it should not" if after.differs(before) else None
    if not after.differs(before):
        return f"{name} is unchanged: {after}"
    if not _quantized(modules[name], layer):
        return f"{name} is not quantized: {after}"
    if after.bytes >= before.bytes:
        return f"{name} did not shrink: {before.bytes} bytes before, {after.bytes} after"
    return None


def _changed_others(before: dict[str, Held], after: dict[str, Held]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        was, is_now = before.get(name), after.get(name)
        where = name or "the model itself"
        if was is None:
            yield f"{where} appeared: {is_now}"
        elif is_now is None:
            yield f"{where} is gone"
        elif was.differs(is_now):
            yield f"{where} changed from {was} to {is_now} although it should not"


def _dtype_problems(before: dict[str, Held], unquantized: dict[str, Held], dtype: Dtype) -> Iterator[str]:
    """Problems of unchanged modules in another dtype; changed modules are reported elsewhere."""
    for name, held in unquantized.items():
        if name not in before or held.differs(before[name]):
            continue
        for item in held.tensors:
            if item.is_floating_point and item.dtype != dtype:
                yield f"{f'{name}.' if name else ''}{item.name} is {item.dtype} although runtime.dtype={dtype}"


def _others(model: nn.Module, linears: Iterable[str]) -> dict[str, Held]:
    """All modules that are neither a Linear nor inside the replacement of one."""
    roots = set(linears)
    return {
        name: Held(type(module).__name__, tuple(own_tensors(module)))
        for name, module in model.named_modules()
        if not any(".".join(name.split(".")[:depth]) in roots for depth in range(1, name.count(".") + 2))
    }
