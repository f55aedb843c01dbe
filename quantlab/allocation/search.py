"""The recipe of a model within a budget: calibration data → losses → choice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quantlab import models
from quantlab.allocation.choose import Format, choose
from quantlab.allocation.sensitivity import Losses, divergences, estimates
from quantlab.allocation.size import NOT_A_MULTIPLE, Shape, fitting, stored_bytes, why_not
from quantlab.config.allocate import AllocateConfig
from quantlab.config.schema import RunConfig
from quantlab.engines import decoding
from quantlab.engines.clocks import Clocks
from quantlab.quantization import receipt
from quantlab.quantization.hqq_layer import GROUP_MULTIPLE
from quantlab.quantization.select import HEAD
from quantlab.recogniser.assemble import prepared
from quantlab.recogniser.calibrate import CalibrationRuns, calibration_alone, calibration_runs
from quantlab.util.console import libraries_silent
from quantlab.util.errors import ConfigError

BITS = (2.0, 3.0, 4.0, 8.0)
_FLOAT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_MB = 1_000_000
Sizes = dict[float | None, int]  # bits → bytes; None: not quantized


@dataclass(frozen=True)
class Found:
    """A recipe and what it is expected to cost."""

    formats: dict[str, Format]  # of each module
    left_out: tuple[str, ...]  # modules that stay as they are
    size_bytes: int  # of the model
    budget_bytes: int  # of the model
    bits_per_weight: float  # over the modules with formats
    utterances: int  # that calibrated
    calibration: str  # fingerprint of their corpus

    @property
    def loss(self) -> float:
        """Sum of the modules' losses, nats per token."""
        return sum(item.loss for item in self.formats.values())


def find(config: RunConfig, wanted: AllocateConfig) -> Found:
    """Choose the bits of each module.

    Args:
        config: resolved; model, device, calibration data, and `runtime.dtype` of everything that is not quantized.
        wanted: the budget, and how losses are found.

    Raises:
        ConfigError: no module has such groups, no recipe fits the budget, or the calibration data cannot be used.
        Unavailable: checkpoint or corpus is not here.
    """
    with prepared(config) as device:
        with libraries_silent():
            checkpoint = models.load(config.model, config.seed, "float32")  # losses are found in it, whatever the dtype
        shapes = _shapes(checkpoint.model, _FLOAT_BYTES[config.runtime.dtype])
        _refuse_no_groups(wanted.group_size, shapes.values())
        sizes = {name: _sizes(shape, wanted.group_size) for name, shape in shapes.items()}
        rest = _rest(checkpoint.model, sizes, _FLOAT_BYTES[config.runtime.dtype])
        budget = _budget(wanted, shapes.values(), rest)
        with libraries_silent():
            speech, mark = calibration_alone(config, checkpoint.feature_extractor)
            how = decoding(checkpoint.model, config)
            runs = calibration_runs(config, checkpoint, speech, device, how, Clocks(device))
            model: Any = checkpoint.model.to(device)
        losses = _losses(model, {name: _bits(some) for name, some in sizes.items()}, wanted, runs)
    formats = {
        name: [Format(bits, count, 0.0 if bits is None else losses[name][bits]) for bits, count in some.items()]
        for name, some in sizes.items()
    }
    with libraries_silent():
        chosen = choose(formats, budget - rest)
    stored = sum(item.bytes for item in chosen.values())
    return Found(
        formats=chosen,
        left_out=(HEAD,),
        size_bytes=rest + stored,
        budget_bytes=budget,
        bits_per_weight=8 * stored / sum(shape.params for shape in shapes.values()),
        utterances=len(runs.labels),
        calibration=mark,
    )


def _losses(model: Any, bits: Mapping[str, Sequence[float]], wanted: AllocateConfig, runs: CalibrationRuns) -> Losses:
    if wanted.sensitivity == "kl":
        return divergences(model, bits, wanted.group_size, runs.lessons(runs.decoding.batch_size))
    return estimates(model, bits, wanted.group_size, runs.lessons(1))


def _shapes(model: nn.Module, float_bytes: int) -> dict[str, Shape]:
    """Every Linear but the head, which shares its matrix with the embedding: quantized alone it would add bytes."""
    return {
        name: Shape(module.out_features, module.in_features, module.bias is not None, float_bytes)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != HEAD
    }


def _sizes(shape: Shape, group_size: int) -> Sizes:
    """Bytes in each number of bits that HQQ can store it in."""
    bits = [bits for bits in BITS if not why_not(shape, bits, group_size)]
    return {key: stored_bytes(shape, key, group_size) for key in (*bits, None)}


def _bits(sizes: Sizes) -> list[float]:
    return [bits for bits in sizes if bits is not None]


def _rest(model: nn.Module, sizes: Mapping[str, Sizes], float_bytes: int) -> int:
    """Bytes of everything that a recipe does not name; all of it is floats."""
    whole = receipt.size_bytes(model) // torch.float32.itemsize * float_bytes
    return whole - sum(some[None] for some in sizes.values())


def _refuse_no_groups(group_size: int, shapes: Collection[Shape]) -> None:
    """Refuse a group size in which no module can be stored; where some cannot, those stay in floats.

    Raises:
        ConfigError: the message says why, and names the sizes in which every module can be stored.
    """
    if any(why_not(shape, 8, group_size) is None for shape in shapes):  # eight bits need no packing
        return
    inputs = ", ".join(map(str, sorted({shape.inputs for shape in shapes})))
    is_multiple = group_size % GROUP_MULTIPLE == 0
    why = f"it divides the inputs of no module ({inputs})" if is_multiple else NOT_A_MULTIPLE
    sizes = ", ".join(map(str, fitting(shapes, BITS))) or "none"
    raise ConfigError(f"group_size={group_size}: {why}; these fit every module: {sizes}: set one of them")


def _budget(wanted: AllocateConfig, shapes: Collection[Shape], rest: int) -> int:
    """Bytes of the model at most.

    Raises:
        ConfigError: the smallest recipe takes more; the message says how much, and what would fit.
    """
    params, least = sum(shape.params for shape in shapes), _least(shapes, wanted.group_size)
    smallest = f"the smallest recipe with group_size={wanted.group_size} takes"
    if wanted.budget_mb is not None:
        budget = int(wanted.budget_mb * _MB)
        if rest + least <= budget:
            return budget
        raise ConfigError(
            f"budget_mb={wanted.budget_mb:g}: {smallest} {-(-(rest + least) // 1000) / 1000:.3f} MB, of which "
            f"{rest / _MB:.3f} MB are not quantized (embedding, convolutions, norms): raise the budget"
            f"{_or_other_groups(shapes, budget - rest)}"
        )
    assert wanted.bits_per_weight is not None  # see AllocateConfig
    budget = int(wanted.bits_per_weight * params / 8)
    if least <= budget:
        return rest + budget
    raise ConfigError(
        f"bits_per_weight={wanted.bits_per_weight:g}: {smallest} {-(-8000 * least // params) / 1000:.3f}, scales and "
        f"zero points included: raise the budget{_or_other_groups(shapes, budget)}"
    )


def _least(shapes: Collection[Shape], group_size: int) -> int:
    """Bytes of the smallest recipe's modules."""
    return sum(min(_sizes(shape, group_size).values()) for shape in shapes)


def _or_other_groups(shapes: Collection[Shape], budget: int) -> str:
    """Group sizes that bring the modules within a budget of bytes; empty if none does."""
    enough = [str(size) for size in fitting(shapes, BITS) if _least(shapes, size) <= budget]
    return f", or set group_size={' or '.join(enough)}" if enough else ""
