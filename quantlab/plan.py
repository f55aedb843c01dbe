"""From configurations to cells: resolve, identify, refuse what cannot be. Nothing is measured or written here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from quantlab import labels, quantizers
from quantlab.config import RunConfig
from quantlab.data import open_corpus
from quantlab.errors import ConfigError, Unavailable
from quantlab.identity import fingerprints, hashed, library_versions, resolve
from quantlab.machine import Site, here
from quantlab.printable import printable
from quantlab.quantizers import Converter, Quantizer
from quantlab.record import Status, to_json

Asked = TypeVar("Asked")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Refusal:
    """Why a cell is a row of the table and is not run."""

    status: Status
    reason: str


@dataclass(frozen=True)
class Cell:
    """One planned cell."""

    id: str
    config: RunConfig  # resolved
    fingerprints: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries behind its figures
    refusal: Refusal | None = None
    name: str = ""  # among the cells of its grid

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.name or self.config.label


def plan(configs: Sequence[RunConfig], site: Site | None = None) -> list[Cell]:
    """The cells of a grid in its own order, each once.

    Args:
        configs: the points of the grid.
        site: where they will run; None is this machine.

    Raises:
        ConfigError: a library, a path or a split does not exist.
    """
    cells = {cell.id: cell for cell in map(planner(site), configs)}
    known = [labels.Cell(cell.id, cell.config.model_dump(mode="json"), cell.fingerprints) for cell in cells.values()]
    named = labels.names(known)
    return [replace(cell, name=named[cell.id]) for cell in cells.values()]


def planner(site: Site | None = None) -> Callable[[RunConfig], Cell]:
    """What makes a cell of a configuration; cells that share checkpoint and corpus have them hashed once."""
    corpora = _once(open_corpus, lambda dataset: dataset.model_dump_json())
    identify = _once(lambda config: fingerprints(config, corpora(config.dataset)), _sources)
    where = site or here()
    return lambda config: _cell(resolve(config, where), identify, where)


def _cell(config: RunConfig, identify: Callable[[RunConfig], dict[str, str]], site: Site) -> Cell:
    try:
        marks, refusal = identify(config), _refusal(config, site)
    except Unavailable as error:
        marks, refusal = {}, Refusal("failed", str(error))
    except ConfigError as error:
        raise ConfigError(printable(f"{config.label}: {error}")) from None
    versions = library_versions(config)
    return Cell(hashed(config.model_dump(mode="json"), marks, versions), config, marks, versions, refusal)


def _refusal(config: RunConfig, site: Site) -> Refusal | None:
    no_device = site.why_no_device(config.device.name)
    if no_device and not site.can_change:
        return Refusal("unsupported", no_device)
    quantizer = quantizers.get(config.quant.library)
    never = quantizer.why_unsupported(config.quant, config.device.name) or _why_no_runtime(config, quantizer)
    if never:
        return Refusal("unsupported", never)
    return Refusal("failed", no_device) if no_device else None


def _why_no_runtime(config: RunConfig, quantizer: Quantizer | Converter) -> str | None:
    runtime, library = config.runtime, config.quant.library
    if runtime.name == "compile" and quantizers.converts(quantizer):
        return f"{library} runs the model itself, runtime=compile is torch's: set runtime=eager"
    if runtime.name == "compile" and runtime.audio_ctx == "dynamic":
        return "runtime.audio_ctx=dynamic would compile again for every length: set runtime=eager"
    if runtime.dtype not in quantizers.dtypes(quantizer):
        whose = "has types of its own for all it stores" if quantizers.converts(quantizer) else "computes in fp32 only"
        return f"{library} {whose}: set runtime.dtype=float32, not {runtime.dtype}"
    return None


def _sources(config: RunConfig) -> str:
    """What a fingerprint is of."""
    seed = config.seed if config.model.weights == "random" else None
    return to_json([config.model.model_dump(), config.dataset.model_dump(), seed])


def _once(find: Callable[[Asked], Found], key: Callable[[Asked], str]) -> Callable[[Asked], Found]:
    """Cells of a grid share checkpoints and corpora: each is looked at once, and missed once (a hub takes seconds)."""
    known: dict[str, Found | Unavailable] = {}

    def look_up(asked: Asked) -> Found:
        name = key(asked)
        if name not in known:
            try:
                known[name] = find(asked)
            except Unavailable as error:
                known[name] = error
        found = known[name]
        if isinstance(found, Unavailable):
            raise found
        return found

    return look_up
