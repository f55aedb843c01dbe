"""What quantizes: one file per library, found by its name; other packages add theirs through an entry point.

Nothing here imports torch or a quantization library before `select` or `setup` runs: the process that plans a
grid asks `why_unsupported` about every cell.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.util
import pkgutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from quantlab.config import Dtype, QuantConfig
from quantlab.errors import CheckpointError, ConfigError, did_you_mean, shortened

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import WhisperForConditionalGeneration
    from typing_extensions import TypeIs

    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.receipt import Converted

ENTRY_POINT_GROUP = "quantlab.quantizers"
HEAD = "proj_out"  # Whisper's output projection; belongs to the decoder, its weight is tied to the embedding
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


def get(library: str) -> AnyQuantizer:
    """The quantizer of a library: a file of this package, else an entry point of group `quantlab.quantizers`.

    Raises:
        ConfigError: there is none of this name, or it lacks a part of `Quantizer` or `Converter`.
    """
    shipped = [item.name for item in pkgutil.iter_modules(__path__)]
    if library in shipped:
        module = importlib.import_module(f"{__name__}.{library}")
    elif library in (added := _added(tuple(sys.path))):
        module = added[library].load()
    else:
        hint = did_you_mean(library, [*shipped, *added])
        raise ConfigError(f"quant.library={library!r}: no such quantizer{hint}")
    own_parts = ["setup", "is_quantized", "kernel"]
    if has_own_engine(module):
        own_parts = ["convert", "reload"] if converts(module) else []
    if missing := [part for part in ("DISTRIBUTIONS", "why_unsupported", *own_parts) if not hasattr(module, part)]:
        raise ConfigError(f"quantizer {library!r} has no {', '.join(missing)}")
    return cast("AnyQuantizer", module)


def added(library: str) -> EntryPoint | None:
    """Where another package's quantizer is; None for a file of this package, and where there is none."""
    shipped = any(item.name == library for item in pkgutil.iter_modules(__path__))
    return None if shipped else _added(tuple(sys.path)).get(library)


@functools.lru_cache(maxsize=1)
def _added(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Of other packages. Looking through all that are installed on `path` takes 20 ms, and a grid asks often."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def converts(quantizer: AnyQuantizer) -> TypeIs[Converter]:
    """Whether the library writes the model for an engine of its own."""
    return hasattr(quantizer, "convert")


def loads(quantizer: AnyQuantizer) -> TypeIs[Loader]:
    """Whether it only loads a file that is there already."""
    return hasattr(quantizer, "load") and not converts(quantizer)


def has_own_engine(quantizer: AnyQuantizer) -> bool:
    """Whether the model is not run by torch."""
    return converts(quantizer) or loads(quantizer)


def dtypes(quantizer: AnyQuantizer) -> tuple[Dtype, ...]:
    """What `runtime.dtype` may be; an engine of its own is given fp32, and stores what it will."""
    return ("float32",) if has_own_engine(quantizer) else getattr(quantizer, "DTYPES", FLOATS)


def distributions(library: str) -> tuple[str, ...]:
    """Packages whose versions can change what this library does."""
    return get(library).DISTRIBUTIONS


def select(model: nn.Module, quant: QuantConfig) -> tuple[tuple[str, ...], dict[str, str]]:
    """The Linear modules to quantize, and the others with the key that leaves them alone.

    Raises:
        ConfigError: a glob of `quant.skip` matches nothing, or nothing is left to quantize.
    """
    from torch import nn

    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    _check_globs(quant.skip, linears)
    reasons = {name: _why_skipped(name, quant) for name in linears}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    if quant.embedding and skipped.get(HEAD, "quant.head=false") != "quant.head=false":
        raise ConfigError(f"quant.embedding=true quantizes {HEAD} too, {skipped[HEAD]} leaves it alone: choose one")
    if quant.embedding:
        skipped.pop(HEAD, None)
    names = tuple(name for name in linears if name not in skipped)
    if not names and quant.scheme != "none":
        raise ConfigError(f"quant={quant.name}: quant.target, quant.skip and quant.head leave nothing to quantize")
    return names, skipped


def _check_globs(globs: Iterable[str], names: list[str]) -> None:
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            near = difflib.get_close_matches(glob, names, n=3, cutoff=0.0)
            raise ConfigError(f"quant.skip={glob!r} matches no Linear module; nearest: {', '.join(near)}")


def _why_skipped(name: str, quant: QuantConfig) -> str | None:
    if quant.scheme == "none":
        return "quant.scheme=none"
    if quant.target not in ("all", _part_of(name)):
        return f"quant.target={quant.target}"
    for glob in quant.skip:
        if fnmatchcase(name, glob):
            return f"quant.skip={glob}"
    return "quant.head=false" if name == HEAD and not quant.head else None


def _part_of(name: str) -> str:
    """`encoder` or `decoder`; cross attention (`encoder_attn`) belongs to the decoder, as the head does."""
    return "encoder" if "encoder" in name.split(".") else "decoder"


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` in the place called `name`, in the mode (training or not) of what was there.

    A module starts out in training mode, in which bitsandbytes takes another, slower path.
    """
    parent, _, child = name.rpartition(".")
    module.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent), child, module)


@contextlib.contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    """Where a converter writes: the folder to keep, or one that is gone after the block."""
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def readable(path: Path, whose: str) -> Iterator[None]:
    """Whatever is wrong with a file while its headers are read, the message names it, in one line.

    Raises:
        CheckpointError: what.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read as a file of {whose}: {shortened(str(error))}") from error


def why_no_embedding(quantizer: object, quant: QuantConfig) -> str | None:
    """Why the token embedding cannot be quantized as asked; None where it can, or nobody asked."""
    if not quant.embedding or hasattr(quantizer, "look_up"):
        return None
    why = getattr(quantizer, "NO_EMBEDDING", f"{quant.library} reads no single rows of what it has packed")
    return f"quant.embedding=true: {why}; set quant.embedding=false"


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
