"""Registry of quantizers: modules of `backends`, and entry points of other packages.

Nothing here imports torch or a quantization library, since the process that plans a grid calls `why_unsupported` for
every cell.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from quantlab.config.schema import QuantConfig
from quantlab.config.types import Dtype
from quantlab.quantization import backends
from quantlab.quantization.base import FLOATS, AnyQuantizer, Converter, Loader, NotHere, layer_of, why_not_installed
from quantlab.util.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import TypeIs

ENTRY_POINT_GROUP = "quantlab.quantizers"


def get(library: str) -> AnyQuantizer:
    """The quantizer of a library: a module of `backends`, else an entry point of group `quantlab.quantizers`.

    Raises:
        ConfigError: there is no such quantizer, or it lacks a part of `Quantizer`, `Layer` or `Converter`.
    """
    if library in (shipped := _shipped()):
        module = importlib.import_module(f"{backends.__name__}.{library}")
    elif library in (added := _added(tuple(sys.path))):
        module = added[library].load()
    else:
        hint = did_you_mean(library, [*shipped, *added])
        raise ConfigError(f"quant.library={library!r}: no such quantizer{hint}")
    parts, of_layer = ["DISTRIBUTIONS", "why_unsupported"], list[str]()
    if not has_own_engine(module):
        parts, of_layer = [*parts, "setup"], ["is_quantized", "kernel"]
    elif converts(module):
        parts += ["convert", "reload"]
    missing = [part for part in parts if not hasattr(module, part)]
    missing += [part for part in of_layer if not hasattr(layer_of(module), part)]
    if missing:
        raise ConfigError(f"quantizer {library!r} has no {', '.join(missing)}")
    return cast("AnyQuantizer", module)


def added(library: str) -> EntryPoint | None:
    """The entry point of a third-party quantizer; None for quantlab's own, or if there is none."""
    return None if library in _shipped() else _added(tuple(sys.path)).get(library)


@functools.cache
def _shipped() -> tuple[str, ...]:
    """The quantizers of `backends`, cached: listing them takes 0.2 ms, and each cell needs them five times."""
    return tuple(item.name for item in pkgutil.iter_modules(backends.__path__))


@functools.lru_cache(maxsize=1)
def _added(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Quantizers of other packages, cached: searching all packages installed on `path` takes 20 ms."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def converts(quantizer: AnyQuantizer) -> TypeIs[Converter]:
    """Whether the library converts the model for its own engine."""
    return hasattr(quantizer, "convert")


def loads(quantizer: AnyQuantizer) -> TypeIs[Loader]:
    """Whether it only loads an existing file."""
    return hasattr(quantizer, "load") and not converts(quantizer)


def has_own_engine(quantizer: AnyQuantizer) -> bool:
    """Whether the model runs outside of torch."""
    return converts(quantizer) or loads(quantizer)


def dtypes(quantizer: AnyQuantizer) -> tuple[Dtype, ...]:
    """Allowed values of `runtime.dtype`; other engines get fp32 and choose their own."""
    return ("float32",) if has_own_engine(quantizer) else getattr(quantizer, "DTYPES", FLOATS)


def distributions(library: str) -> tuple[str, ...]:
    """Packages whose versions can change the results of this library."""
    return get(library).DISTRIBUTIONS


DEVICES = ("cpu", "cuda", "mps")
_OF_EVERY_QUANTIZER = frozenset({"name", "library", "scheme", "target", "skip", "head", "embedding", "recover",
                                   "lora_rank"})  # fmt: skip


def check_keys(quantizer: object, quant: QuantConfig) -> None:
    """Refuse keys that the quantizer does not read; one that does not state READS is asked by `why_unsupported` alone.

    Raises:
        ConfigError: the message names the keys that it reads.
    """
    reads = getattr(quantizer, "READS", QuantConfig.model_fields)
    unread = [
        f"quant.{key}={value}"
        for key, value in quant
        if key not in _OF_EVERY_QUANTIZER.union(reads) and value != QuantConfig.model_fields[key].default
    ]
    if unread:
        allowed = ", ".join(f"quant.{key}" for key in QuantConfig.model_fields if key in {*reads, "scheme", "target"})
        raise ConfigError(f"{', '.join(unread)}: {quant.library} does not read it; leave it out. It reads {allowed}")


def why_never(quantizer: AnyQuantizer, quant: QuantConfig) -> str | None:
    """Why no machine can quantize so; None if one can, or if the quantizer does not state READS."""
    if not hasattr(quantizer, "READS"):
        return None
    reasons = [quantizer.why_unsupported(quant, device) for device in DEVICES]
    if all(reasons) and not any(isinstance(reason, NotHere) for reason in reasons):
        return reasons[0]
    return why_no_embedding(quantizer, quant) or why_no_recovery(quantizer, quant)


def why_no_embedding(quantizer: object, quant: QuantConfig) -> str | None:
    """Why the token embedding cannot be quantized; None if it can, or is not requested."""
    layer = layer_of(quantizer)
    if not quant.embedding or hasattr(layer, "look_up"):
        return None
    why = getattr(layer, "NO_EMBEDDING", f"{quant.library} cannot read single rows of a packed weight")
    return f"quant.embedding=true: {why}; set quant.embedding=false"


def why_no_word_times(quantizer: object) -> str | None:
    """Why the library's own engine cannot say when words were spoken; None if it can, or if torch runs the model."""
    why = getattr(quantizer, "NO_WORD_TIMES", None)
    return why and f"runtime.word_times=true: {why}; leave runtime.word_times=false"


def why_no_recovery(quantizer: object, quant: QuantConfig) -> str | None:
    """Why a quantized model cannot be trained; None if it can, or is not to be."""
    if quant.recover is None:
        return None
    asked = f"quant.recover={quant.recover}"
    allowed = getattr(layer_of(quantizer), "RECOVERS", ())
    if quant.recover not in allowed:
        others = ", bnb_nf4 and bnb_fp4" if quant.recover == "lora" else ""
        instead = f", or set quant.recover={' or '.join(allowed)}, which {quant.name} allows" if allowed else ""
        return f"{asked} trains the layers of hqq_*, rtn_*, gptq_*, awq_*, recipe{others}: choose one of these{instead}"
    if quant.recover == "lora" and (missing := why_not_installed("peft", "peft")):
        return missing
    if quant.axis == 0 or quant.backend not in (None, "pytorch"):
        return f"{asked} trains groups along the inputs with torch's kernels: set quant.axis=1 quant.backend=null"
    if quant.embedding:
        return f"{asked} cannot train a quantized embedding: set quant.embedding=false"
    return None
