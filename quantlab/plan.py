"""From configurations to cells: resolve, identify, refuse what cannot be. Nothing is measured or written here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantlab import quantizers
from quantlab.config import RunConfig
from quantlab.data import open_corpus
from quantlab.errors import ConfigError, Unavailable
from quantlab.identity import cell_id, fingerprints, resolve
from quantlab.machine import why_no_device
from quantlab.quantizers import Converter, Quantizer
from quantlab.record import Status, to_json


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
    identify = _memoised(lambda config: fingerprints(config, open_corpus(config.dataset)))
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
        or _why_no_runtime(config, quantizer)
    )
    return Refusal("unsupported", reason) if reason else None


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


def _memoised(identify: Callable[[RunConfig], dict[str, str]]) -> Callable[[RunConfig], dict[str, str]]:
    """Cells of a grid share checkpoints and corpora: each is hashed once."""
    known: dict[str, dict[str, str]] = {}

    def look_up(config: RunConfig) -> dict[str, str]:
        key = to_json([config.model.model_dump(), config.dataset.model_dump(), config.seed])
        if key not in known:
            known[key] = identify(config)
        return known[key]

    return look_up
