"""What the file of a library has to offer: it quantizes in torch, converts for another engine, or loads a file.

Another package adds its own through an entry point of the group `quantlab.quantizers`; its module has the same parts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quantlab.config.schema import QuantConfig
from quantlab.config.types import Dtype

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import WhisperForConditionalGeneration

    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.quantization.tensors import Held, Stored

FLOATS: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")
Calibrate = Callable[["nn.Module"], None]


class Quantizer(Protocol):
    """What the file of a library has at its top level; an entry point names such a module.

    Where it cannot work on a model in every type of FLOATS, it has a tuple DTYPES of those in which it can.
    """

    DISTRIBUTIONS: tuple[str, ...]  # installed packages whose versions can change a figure

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
        calibrate: Calibrate,
    ) -> nn.Module:
        """Quantize exactly the Linear modules `names`, in place or not; leave everything else as it is.

        Whatever a library builds or compiles at first use happens here, so that no timed region contains it.

        Args:
            model: in fp32 or what else `runtime.dtype` says, on the CPU, in evaluation mode.
            quant: what to do.
            names: see `select`.
            device: where the model ends up.
            calibrate: runs the calibration data through a model; static schemes call it, exactly once.

        Returns:
            The model on `device`, ready for `generate`.

        Raises:
            ConfigError: a module does not fit the scheme; the message names it.
        """

    def is_quantized(self, module: nn.Module) -> bool:
        """Whether a module holds quantized weights, told by what it is and stores."""

    def kernel(self, module: nn.Module) -> str | None:
        """What multiplies in a quantized module, as far as the library tells."""


@dataclass(frozen=True)
class Converted:
    """A model in the hands of another engine, and what that engine holds."""

    engine: Engine
    linears: dict[str, Held]  # by the Linear's name in transformers
    others: tuple[Stored, ...]  # every other tensor
    kernel: str  # what multiplies, as far as the engine tells
    problems: tuple[str, ...] = ()  # what of its file the engine has not loaded


class Converter(Protocol):
    """What the file of a library has that runs the model by an engine of its own, in place of `setup` and the like."""

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
        """Write the model in the engine's own format, load it there, and look at what was loaded.

        Args:
            model: in fp32, on the CPU, in evaluation mode; stays as it is.
            quant: what to do.
            names: the Linear modules that are to be stored in fewer bits, see `select`.
            device: where the engine runs.
            decoding: how it is to decode.
            threads: that it may use.
            keep: the folder where what it wrote is to stay, beside the checkpoint's tokenizer; null: it is removed.

        Raises:
            ConfigError: a module does not fit the scheme, or the engine has no way to do what `decoding` asks for.
        """

    def reload(
        self, folder: Path, quant: QuantConfig, device: torch.device, decoding: Decoding, threads: int
    ) -> Engine:
        """Load what `convert` left in `keep`; the arguments are as they were then.

        Raises:
            ConfigError: as in `convert`.
        """


class Loader(Protocol):
    """What the file of a library has that loads a file which is there already, and quantizes nothing: `as_shipped`."""

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
        """Load a file by its own engine, and look at what was loaded.

        Args:
            path: of the file or folder.
            model: what it holds, dequantized to fp32.
            quant: what its keys say of the file.
            device: where the engine runs.
            decoding: how it is to decode.
            threads: that it may use.

        Raises:
            ConfigError: the file's tokens are not those of its tokenizer, or the engine has no way to do what
                `decoding` asks for.
        """


AnyQuantizer = Quantizer | Converter | Loader


def why_not_installed(module: str, distribution: str) -> str | None:
    """Why a library cannot be used, found without importing it."""
    found = importlib.util.find_spec(module.partition(".")[0])
    return None if found else f"{distribution} is not installed: pip install {distribution}"


def why_not_among(key: str, value: object, allowed: Iterable[object], library: str) -> str | None:
    """Why a library cannot do `quant.<key>=<value>`; None where it can, or where the key is null."""
    allowed = list(allowed)
    if value is None or value in allowed:
        return None
    return f"{library} has no quant.{key}={value}; it has {', '.join(map(str, allowed))}"
