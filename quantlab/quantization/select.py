"""Selection of the Linear modules to quantize, and replacement of modules."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from quantlab.config.quant import RECIPE
from quantlab.config.schema import QuantConfig
from quantlab.quantization.recipe import bits_of, check_recipe, where
from quantlab.util.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

HEAD = "proj_out"  # the output projection of Whisper and Moonshine; its weight is tied to the embedding
HEADS = (HEAD, "lm_head")  # that of a CTC model is tied to nothing


def select(model: nn.Module, quant: QuantConfig) -> tuple[tuple[str, ...], dict[str, str]]:
    """The Linear modules to quantize, and the skipped ones with the key that excludes them.

    Raises:
        ConfigError: as `choose`.
    """
    from torch import nn

    return choose([name for name, module in model.named_modules() if isinstance(module, nn.Linear)], quant)


def choose(linears: Sequence[str], quant: QuantConfig) -> tuple[tuple[str, ...], dict[str, str]]:
    """As `select`, from the names of all Linear modules of a model.

    Raises:
        ConfigError: a glob in `quant.skip` matches nothing, a recipe does not name each module once, or no module is
            left to quantize.
    """
    _check_globs(quant.skip, linears)
    check_recipe(quant, linears)
    reasons = {name: _why_skipped(name, quant) for name in linears}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    if quant.embedding and skipped.get(HEAD, "quant.head=false") != "quant.head=false":
        raise ConfigError(f"quant.embedding=true quantizes {HEAD} too, but {skipped[HEAD]} excludes it: choose one")
    if quant.embedding:
        skipped.pop(HEAD, None)
    names = tuple(name for name in linears if name not in skipped)
    if not names and quant.library == RECIPE:
        raise ConfigError(
            f"{where(quant)}: every module is none, so the recipe quantizes nothing: give one its bits, or measure "
            "quant=none"
        )
    if not names and quant.scheme != "none":
        raise ConfigError(f"quant={quant.name}: quant.target, quant.skip and quant.head leave nothing to quantize")
    return names, skipped


def _check_globs(globs: Sequence[str], names: Sequence[str]) -> None:
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
    if quant.library == RECIPE and bits_of(quant, name) is None:
        return "none in quant.modules"
    return "quant.head=false" if name in HEADS and not quant.head else None


def _part_of(name: str) -> str:
    """`encoder` or `decoder`; the head belongs to the decoder."""
    return "decoder" if name in HEADS or "decoder" in name.split(".") else "encoder"


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module `name` by `module`, keeping the mode (training or evaluation).

    New modules start in training mode, in which bitsandbytes takes a slower path.
    """
    parent, _, child = name.rpartition(".")
    module.train(model.get_submodule(name).training)
    setattr(model.get_submodule(parent), child, module)
