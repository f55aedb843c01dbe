"""A recipe as a file, and as a table of bits by layer."""

from __future__ import annotations

import importlib.metadata
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from quantlab import models
from quantlab.allocation.search import Found
from quantlab.config.allocate import AllocateConfig
from quantlab.config.schema import RunConfig
from quantlab.report.bits import by_layer, in_words
from quantlab.util.console import console
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError
from quantlab.util.printable import printable


def write(path: Path, config: RunConfig, wanted: AllocateConfig, found: Found) -> None:
    """Write a recipe, with what it was made from in comments.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    budget = f"budget_mb={wanted.budget_mb:g}" if wanted.budget_mb else f"bits_per_weight={wanted.bits_per_weight:g}"
    lines = [
        f"# written by quantlab allocate {importlib.metadata.version('quantlab')}",
        f"# model: {printable(config.model.label)}, {models.fingerprint(config.model, config.seed)}",
        f"# budget: {budget}, {found.budget_bytes:,} bytes of the model; this recipe: {found.size_bytes:,}",
        f"# calibration: {counted(found.utterances, 'utterance')} of the corpus {found.calibration}",
        f"# predicted loss: {found.loss:.6g} nats per token, by sensitivity={wanted.sensitivity}",
        f"method: {wanted.method}",
        f"group_size: {wanted.group_size}",
        "modules:",
        *(f"  {name}: {in_words(item.bits)}" for name, item in found.formats.items()),
        *(f"  {name}: {in_words(None)}" for name in found.left_out),
    ]
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except FileExistsError:
        raise ConfigError(f"out={path} exists: remove it, or set out=FILE") from None
    except OSError as error:
        raise ConfigError(f"out={path}: {error.strerror}: set out=FILE") from None


def show(path: Path, keys: Sequence[str], found: Found) -> None:
    """Print the bits of each layer, the size, and how to measure it.

    Args:
        path: of the recipe.
        keys: model, corpus and calibration data as on the command line: with others, a disjoint share of the corpus
            would be another, and what calibrated would be scored.
        found: the recipe.
    """
    grid = by_layer({name: item.bits for name, item in found.formats.items()})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in grid.heads:
        table.add_column(heading, no_wrap=True)
    for row in grid.rows:
        table.add_row(*row)
    out = console()
    out.print(table)
    used, allowed = found.size_bytes / 1e6, found.budget_bytes / 1e6
    out.print(
        f"{printable(str(path))}: {used:.3f} MB of {allowed:.3f} MB, {found.bits_per_weight:.2f} bits per weight, "
        f"predicted loss {found.loss:.3g} nats per token",
        soft_wrap=True,
    )
    command = shlex.join(["quantlab", "-m", *keys, "quant=none,recipe", f"quant.path={path}"])
    out.print(f"measure it: {printable(command)}", soft_wrap=True)
