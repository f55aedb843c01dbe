"""Which bits a recipe gives to a module; see `quantlab.config.recipe`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from quantlab.config.quant import RECIPE
from quantlab.config.schema import QuantConfig
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError


def of_module(quant: QuantConfig, name: str) -> QuantConfig:
    """The settings of one module: those of the recipe's method, with this module's bits; unchanged without a recipe."""
    if quant.library != RECIPE:
        return quant
    return with_bits(quant, bits_of(quant, name))


def with_bits(quant: QuantConfig, bits: float | None) -> QuantConfig:
    """The settings of a recipe's method for modules of so many bits."""
    return quant.model_copy(update={"library": quant.method, "bits": bits, "method": None, "path": None, "modules": {}})


def bits_of(quant: QuantConfig, name: str) -> float | None:
    """Bits of a module by the recipe; None: it is not quantized."""
    return next((bits for glob, bits in quant.modules.items() if fnmatchcase(name, glob)), None)


def where(quant: QuantConfig) -> str:
    """What a message on a recipe begins with: its file, where it was read from one."""
    return quant.path or "quant.modules"


def check_recipe(quant: QuantConfig, linears: Sequence[str]) -> None:
    """Refuse a recipe that does not name each Linear of the model exactly once; no check without a recipe.

    Raises:
        ConfigError: names the module.
    """
    if quant.library != RECIPE:
        return
    if not quant.modules:
        raise ConfigError(f"quant={quant.name}: it has no modules; set quant.path=FILE")
    for glob in quant.modules:
        if not any(fnmatchcase(name, glob) for name in linears):
            near = difflib.get_close_matches(glob, linears, n=1, cutoff=0.0)
            raise ConfigError(
                f"{where(quant)}: {glob} matches no Linear module of the model; nearest: {', '.join(near)}"
            )
    matches = {name: [glob for glob in quant.modules if fnmatchcase(name, glob)] for name in linears}
    if missing := [name for name, globs in matches.items() if not globs]:
        raise ConfigError(
            f"{where(quant)}: it lacks {counted(len(missing), 'module')} of the model, e.g. {missing[0]}: give the "
            "bits, or none"
        )
    if twice := next((name for name, globs in matches.items() if len(globs) > 1), None):
        raise ConfigError(
            f"{where(quant)}: {twice} is given twice, by {' and '.join(matches[twice])}: give each module once"
        )
