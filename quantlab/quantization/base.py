"""Interfaces of quantizer modules: quantize in torch, convert for another engine, or load a quantized file.

Other packages add modules with the same interface through the entry point group `quantlab.quantizers`.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantlab.config.schema import QuantConfig
from quantlab.config.types import Dtype

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import WhisperForConditionalGeneration

    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.quantization.rounding import Block
    from quantlab.quantization.tensors import Held, Stored

FLOATS: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")
Calibrate = Callable[["nn.Module"], None]
Pass = Callable[["nn.Module"], object]
Trait = bool | int | float | str  # non-tensor state of a module, kept by an export


class Calibration(Protocol):
    """Calibration data, run through a model."""

    def __call__(self, model: nn.Module) -> None:
        """Decode all utterances, as in the measurement."""

    def passes(self, block: Block | None = None) -> Iterator[Pass]:
        """A forward pass for each utterance, which returns the model's output and does not disable gradients.

        The decoder is given `calibration.labels`. With a block, it is for the statistics of its layers, and ends there.
        """


class Quantizer(Protocol):
    """Module-level interface of a quantizer that works on the torch model.

    A module that does not support all dtypes in FLOATS defines a tuple DTYPES of those it supports. One that does not
    read all keys of `quant` may define a tuple READS of those it reads: others are refused (`registry.check_keys`).
    `scheme` is always read, and `target`, `skip`, `head` and `embedding` are applied by quantlab. One whose `setup`
    rounds weights by calibration data defines EMPTY, the library whose `setup` makes the same modules without. It
    implements `Layer` too, or names the module that does as LAYER.
    """

    DISTRIBUTIONS: tuple[str, ...]  # packages whose versions can change a figure

    def why_unsupported(self, quant: QuantConfig, device: str) -> str | None:
        """Why this combination cannot exist on `device` (cpu, cuda, mps), or None.

        Cheap: imports neither torch nor the library.
        """

    def setup(
        self,
        model: nn.Module,
        quant: QuantConfig,
        names: tuple[str, ...],
        device: torch.device,
        calibrate: Calibration,
    ) -> nn.Module:
        """Quantize exactly the Linear modules `names`, in place or not, and nothing else.

        Other modules keep their types and shapes; their values may change only if the model before rounding then
        computes the same (`rounding.folding`). Anything that the library builds or compiles at first use must happen
        here, outside of timed regions.

        Args:
            model: the model in `runtime.dtype`, on the CPU, in evaluation mode.
            quant: the quantization settings.
            names: see `select`.
            device: target device of the model.
            calibrate: the calibration data; static schemes call it exactly once.

        Returns:
            The model on `device`, ready for `generate`.

        Raises:
            ConfigError: a module does not fit the scheme; the message names it.
        """


class Layer(Protocol):
    """Module-level interface of the modules that replace Linear ones.

    May define `stored_bits(module) -> float | None`, the bits of a code, for the receipt; what `LooksUp`, `Remembers`
    and `Recovers` have; and NO_EMBEDDING, why `quant.embedding` is not supported.
    """

    def is_quantized(self, module: nn.Module) -> bool:
        """Whether a module holds quantized weights, judged by its class and tensors."""

    def kernel(self, module: nn.Module) -> str | None:
        """The matmul kernel of a quantized module, as far as the library reports it."""


def layer_of(quantizer: Any) -> Layer:
    """Where a quantizer's modules are described: the module that it names as LAYER, or itself."""
    found: Layer = getattr(quantizer, "LAYER", quantizer)
    return found


@dataclass(frozen=True)
class Converted:
    """A model converted for and loaded by another engine, with the tensors that the engine holds."""

    engine: Engine
    linears: dict[str, Held]  # by the Linear's name in transformers
    others: tuple[Stored, ...]  # all other tensors
    kernel: str  # the matmul kernel, as far as the engine reports it
    problems: tuple[str, ...] = ()  # differences between the file and the loaded model


class Converter(Protocol):
    """Module-level interface of a library that runs the model in its own engine."""

    DISTRIBUTIONS: tuple[str, ...]  # as in Quantizer

    def why_unsupported(self, quant: QuantConfig, device: str) -> str | None:
        """As in Quantizer."""

    def convert(
        self,
        model: WhisperForConditionalGeneration,
        quant: QuantConfig,
        names: tuple[str, ...],
        device: torch.device,
        decoding: Decoding,
        threads: int,
        keep: Path | None = None,
    ) -> Converted:
        """Write the model in the engine's format, load it, and inspect the result.

        Args:
            model: the model in fp32, on the CPU, in evaluation mode; it is not changed.
            quant: the quantization settings.
            names: the Linear modules to quantize, see `select`.
            device: where the engine runs.
            decoding: how it is to decode.
            threads: that it may use.
            keep: folder for the written files, beside the checkpoint's tokenizer; None: they are removed.

        Raises:
            ConfigError: a module does not fit the scheme, or the engine has no way to do what `decoding` asks for.
        """

    def reload(
        self, folder: Path, quant: QuantConfig, device: torch.device, decoding: Decoding, threads: int
    ) -> Engine:
        """Load the files that `convert` wrote to `keep`, with the same arguments.

        Raises:
            ConfigError: as in `convert`.
        """


class Loader(Protocol):
    """Module-level interface of `as_shipped`, which loads an existing quantized file."""

    DISTRIBUTIONS: tuple[str, ...]  # as in Quantizer

    def why_unsupported(self, quant: QuantConfig, device: str) -> str | None:
        """As in Quantizer."""

    def load(
        self,
        path: Path,
        model: WhisperForConditionalGeneration,
        quant: QuantConfig,
        device: torch.device,
        decoding: Decoding,
        threads: int,
    ) -> Converted:
        """Load a file with its engine, and inspect the result.

        Args:
            path: path of the file or folder.
            model: its content dequantized to fp32.
            quant: settings that describe the file.
            device: where the engine runs.
            decoding: how it is to decode.
            threads: that it may use.

        Raises:
            ConfigError: the file's tokens are not those of its tokenizer, or the engine has no way to do what
                `decoding` asks for.
        """


AnyQuantizer = Quantizer | Converter | Loader


class NotHere(str):
    """A reason that only holds on this machine; any other reason of all devices is a mistake in the settings."""


def why_not_installed(module: str, distribution: str, how: str | None = None) -> NotHere | None:
    """Why a library cannot be used, determined without importing it; `how` to install it, if not by pip."""
    found = importlib.util.find_spec(module.partition(".")[0])
    return None if found else NotHere(f"{distribution} is not installed: {how or f'pip install {distribution}'}")


def why_not_among(key: str, value: object, allowed: Iterable[object], library: str) -> str | None:
    """Why a library does not support `quant.<key>=<value>`; None if it does, or if the value is None."""
    allowed = list(allowed)
    if value is None or value in allowed:
        return None
    near = difflib.get_close_matches(str(value), map(str, allowed), n=1) if isinstance(value, str) else []
    hint = f"; did you mean quant.{key}={near[0]}?" if near else ""
    return f"{library} has no quant.{key}={value}; it has {', '.join(map(str, allowed)) or 'none'}{hint}"
