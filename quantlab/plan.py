"""From configurations to cells: resolve, identify, refuse what cannot be. Nothing is measured or written here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from quantlab import quantizers
from quantlab.config import RunConfig
from quantlab.data import open_corpus
from quantlab.errors import ConfigError, Unavailable
from quantlab.identity import cell_id, fingerprints, resolve
from quantlab.machine import why_no_device
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
    refusal: Refusal | None = None


def plan(configs: Sequence[RunConfig]) -> list[Cell]:
    """The cells of a grid in its own order, each once.

    Raises:
        ConfigError: a library, a path or a split does not exist.
    """
    corpora = _once(open_corpus, lambda dataset: dataset.model_dump_json())
    identify = _once(lambda config: fingerprints(config, corpora(config.dataset)), _sources)
    cells = [_cell(resolve(config), identify) for config in configs]
    return list({cell.id: cell for cell in cells}.values())


def _cell(config: RunConfig, identify: Callable[[RunConfig], dict[str, str]]) -> Cell:
    try:
        marks, refusal = identify(config), _refusal(config)
    except Unavailable as error:
        marks, refusal = {}, Refusal("failed", str(error))
    except ConfigError as error:
        raise ConfigError(f"{config.label}: {error}") from None
    return Cell(cell_id(config, marks), config, marks, refusal)


def _refusal(config: RunConfig) -> Refusal | None:
    quantizer = quantizers.get(config.quant.library)
    reason = (
        why_no_device(config.device.name)
        or quantizer.why_unsupported(config.quant, config.device.name)
        or _why_no_runtime(config, quantizers.converts(quantizer))
    )
    return Refusal("unsupported", reason) if reason else None


def _why_no_runtime(config: RunConfig, own_engine: bool) -> str | None:
    runtime = config.runtime
    if runtime.name == "compile" and own_engine:
        return f"{config.quant.library} runs the model itself, runtime=compile is torch's: set runtime=eager"
    if runtime.name == "compile" and runtime.audio_ctx == "dynamic":
        return "runtime.audio_ctx=dynamic would compile again for every length: set runtime=eager"
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
