"""Planning of a grid: configurations become cells or refusals. Nothing is measured or written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from quantlab import models
from quantlab.config.schema import AS_SHIPPED, NO_QUANTIZATION, ModelConfig, RunConfig
from quantlab.data import Corpus, open_corpus
from quantlab.grid.families import why_no_family
from quantlab.grid.jobs import check_jobs
from quantlab.models.tokens import Tokens, check_language, check_times
from quantlab.quantization import registry
from quantlab.quantization.backends.as_shipped import read_off, why_not_applicable
from quantlab.quantization.base import AnyQuantizer
from quantlab.quantization.select import choose
from quantlab.recogniser.fingerprints import Identity, fingerprints, keywords_of, library_versions, resolve
from quantlab.recogniser.true_words import true_words
from quantlab.records import labels
from quantlab.records.cell_id import LONG_FORM, hashed
from quantlab.records.schema import Status, to_json
from quantlab.util.errors import CheckpointError, ConfigError, Unavailable, UnsupportedError, shortened
from quantlab.util.machine import Site, here
from quantlab.util.printable import printable
from quantlab.util.progress import over

Asked = TypeVar("Asked")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Refusal:
    """The reason why a cell is only a row of the table and not run."""

    status: Status
    reason: str
    is_mistake: bool = False  # of the user: if every cell is refused so, nothing is run
    is_for_good: bool = False  # on every machine: the same if every cell but the baseline is refused so


@dataclass(frozen=True)
class Cell:
    """One planned cell."""

    id: str
    config: RunConfig  # resolved
    fingerprints: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)  # of the libraries that affect its figures
    refusal: Refusal | None = None
    name: str = ""  # unique label within its grid
    corpus: Corpus | None = field(default=None, repr=False, compare=False)  # None: listed in the measuring process

    @property
    def label(self) -> str:
        """Display name of the cell."""
        return self.name or self.config.label

    @property
    def identity(self) -> Identity:
        """Identity for the measuring process, which need not compute it again."""
        return Identity(self.id, self.fingerprints, self.versions, self.corpus)


def plan(configs: Sequence[RunConfig], site: Site | None = None) -> list[Cell]:
    """The distinct cells of a grid, in order.

    Args:
        configs: the points of the grid.
        site: the machine that will run them; None: this machine.

    Raises:
        ConfigError: a library, path or split does not exist, or no cell can be measured.
    """
    check_jobs(configs, site or here())
    cells = {cell.id: cell for cell in map(planner(site), over(configs, "cells planned"))}
    _check_any(list(cells.values()))
    known = [labels.Cell(cell.id, cell.config.model_dump(mode="json"), cell.fingerprints) for cell in cells.values()]
    named = labels.names(known)
    return [replace(cell, name=named[cell.id]) for cell in cells.values()]


def _check_any(cells: Sequence[Cell]) -> None:
    """Refuse a grid in which every cell is a user's mistake; each mistake is named once."""
    mistakes = {cell.refusal.reason: cell for cell in cells if cell.refusal and cell.refusal.is_mistake}
    quantized = [cell for cell in cells if cell.config.quant.library != NO_QUANTIZATION.library]
    hopeless = quantized and all(cell.refusal and cell.refusal.is_for_good for cell in quantized)
    if cells and (hopeless or all(cell.refusal and cell.refusal.is_mistake for cell in cells)):
        raise ConfigError("\n".join(printable(f"{cell.label}: {reason}") for reason, cell in mistakes.items()))


def planner(site: Site | None = None) -> Callable[[RunConfig], Cell]:
    """A function that plans a cell; shared checkpoints and corpora are hashed once."""
    corpora = _cached_by(open_corpus, lambda dataset: dataset.model_dump_json())

    def identified(config: RunConfig) -> tuple[dict[str, str], Corpus]:
        corpus = corpora(config.dataset)
        keywords_of(config, corpus)  # or a line that says why they cannot be counted
        return fingerprints(config, corpus.fingerprint, true_words(config, corpus)), corpus

    identify = _cached_by(identified, _sources)
    tokens = _cached_by(models.special_tokens, lambda model: model.model_dump_json())
    where = site or here()
    refused = _cached_by(lambda config: _refusal(config, where), _but_seed)
    return lambda config: _cell(resolve(config, where), identify, tokens, refused)


def _cell(
    config: RunConfig,
    identify: Callable[[RunConfig], tuple[dict[str, str], Corpus]],
    tokens: Callable[[ModelConfig], Tokens | None],
    refused: Callable[[RunConfig], Refusal | None],
) -> Cell:
    marks: dict[str, str] = {}
    corpus = None
    try:
        registry.check_keys(registry.get(config.quant.library), config.quant)
        config = read_off(config)
        marks, corpus = identify(config)
        if (known := tokens(config.model)) is not None:
            check_language(known.languages, config.dataset.language, f"model {config.model.label}")
            if config.dataset.long == "sequential":
                check_times(known.times, f"model {config.model.label}")
        refusal = refused(config)
    except Unavailable as error:
        refusal = Refusal("failed", str(error))
    except UnsupportedError as error:
        refusal = Refusal("unsupported", str(error), is_mistake=True)
    except CheckpointError as error:
        marks = {"checkpoint": "refused:" + hashlib.sha256(str(error).encode(errors="replace")).hexdigest()}
        refusal = Refusal("failed", str(error), is_mistake=True)
    except ConfigError as error:
        raise ConfigError(printable(f"{config.label}: {error}")) from None
    except OSError as error:  # an invalid or unreadable path; a full disk
        where = "" if error.filename is None else f"{shortened(error.filename)}: "
        raise ConfigError(printable(f"{config.label}: {where}{error.strerror or error}")) from None
    versions = library_versions(config)
    id = hashed(config.model_dump(mode="json"), marks, versions)
    listed = corpus if corpus and corpus.is_pinned else None
    return Cell(id, config, marks, versions, refusal, corpus=listed)


def _refusal(config: RunConfig, site: Site) -> Refusal | None:
    quantizer = registry.get(config.quant.library)
    if never := registry.why_never(quantizer, config.quant):
        return Refusal("unsupported", never, is_mistake=True, is_for_good=True)
    no_device = site.why_no_device(config.device.name)
    if no_device and not site.can_change:
        return Refusal("unsupported", no_device)
    if not site.can_change and (asked := config.device.threads or 1) > site.threads:
        cores = f"{site.threads} core" + "s" * (site.threads != 1)
        return Refusal("unsupported", f"device.threads={asked}: this process may use {cores}", is_mistake=True)
    never = (
        quantizer.why_unsupported(config.quant, config.device.name)
        or registry.why_no_embedding(quantizer, config.quant)
        or registry.why_no_recovery(quantizer, config.quant)
        or why_no_family(config, quantizer)
        or _why_no_runtime(config, quantizer)
        or _why_no_long_form(config, quantizer)
        or (registry.why_no_word_times(quantizer) if config.runtime.word_times else None)
    )
    if never:
        return Refusal("unsupported", never)
    if wrong := why_not_applicable(config) or _why_not_selected(config):
        return Refusal("unsupported", wrong, is_mistake=True)
    return Refusal("failed", no_device) if no_device else None


def _why_not_selected(config: RunConfig) -> str | None:
    if not (config.quant.skip or config.quant.modules) or (linears := models.linear_weights(config.model)) is None:
        return None
    try:
        choose(tuple(linears), config.quant)
    except ConfigError as error:
        return str(error)
    return None


def _why_no_runtime(config: RunConfig, quantizer: AnyQuantizer) -> str | None:
    runtime, library = config.runtime, config.quant.library
    if runtime.name == "compile" and registry.has_own_engine(quantizer):
        return f"{library} has its own engine, but runtime=compile needs torch: set runtime=eager"
    if runtime.name == "compile" and config.quant.embedding:
        return "torch cannot compile a quantized embedding: set runtime=eager"
    if runtime.name == "compile" and runtime.audio_ctx == "dynamic":
        return "runtime.audio_ctx=dynamic would compile again for every length: set runtime=eager"
    if runtime.name == "compile" and config.protocol.num_beams > 1:
        return f"runtime=compile decodes greedily, not with {config.protocol.num_beams} beams: set runtime=eager"
    if runtime.dtype not in registry.dtypes(quantizer):
        whose = "chooses its own types" if registry.has_own_engine(quantizer) else "computes in fp32 only"
        return f"{library} {whose}: set runtime.dtype=float32, not {runtime.dtype}"
    return None


def _why_no_long_form(config: RunConfig, quantizer: AnyQuantizer) -> str | None:
    if config.dataset.long != "sequential":
        asked = [name for name in LONG_FORM if getattr(config.protocol, name)]
        return f"protocol.{asked[0]}=true needs dataset.long=sequential: set it to false" if asked else None
    way_out = "set dataset.long=chunked or consecutive"
    if registry.has_own_engine(quantizer):
        return f"dataset.long=sequential needs transformers, but {config.quant.library} has its own engine: {way_out}"
    if config.runtime.name == "compile":
        return f"dataset.long=sequential needs timestamps, but runtime=compile decodes without: {way_out}"
    if config.runtime.audio_ctx == "dynamic":
        return f"dataset.long=sequential needs whole windows, not runtime.audio_ctx=dynamic: {way_out}"
    if config.model.weights == "random":
        return f"dataset.long=sequential needs the model's timestamps, but its weights are random: {way_out}"
    return None


def _but_seed(config: RunConfig) -> str:
    """All settings except the seed, which no refusal depends on."""
    return to_json(config.model_dump(mode="json", exclude={"seed"}))


def _sources(config: RunConfig) -> str:
    """The settings that determine the fingerprints."""
    seed = config.seed if config.model.weights == "random" else None
    file = config.quant.library == AS_SHIPPED
    calibration = config.calibration_dataset
    parts = [config.model, config.dataset, config.baseline, *([calibration] if calibration else [])]
    return to_json(
        [
            *(part.model_dump() for part in parts),
            config.quant.modules and config.quant.model_dump(),
            file,
            seed,
            config.runtime.word_times,
        ]
    )


def _cached_by(find: Callable[[Asked], Found], key: Callable[[Asked], str]) -> Callable[[Asked], Found]:
    """Cache results and errors by key, since cells share checkpoints and corpora, and a hub takes seconds."""
    known: dict[str, Found | Unavailable | ConfigError] = {}

    def look_up(asked: Asked) -> Found:
        name = key(asked)
        if name not in known:
            try:
                known[name] = find(asked)
            except (Unavailable, ConfigError) as error:
                known[name] = error
        found = known[name]
        if isinstance(found, Unavailable | ConfigError):
            raise found
        return found

    return look_up
