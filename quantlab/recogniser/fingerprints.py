"""Resolved configuration, content fingerprints and id of a cell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from quantlab import models
from quantlab.analysis.looks import Opponent
from quantlab.config.schema import AS_SHIPPED, DatasetConfig, QuantConfig, RunConfig
from quantlab.data import Corpus, added_reader, open_corpus
from quantlab.quantization import registry
from quantlab.recogniser.true_words import Truth, true_words
from quantlab.recogniser.true_words import fingerprint as fingerprint_of_words
from quantlab.records.cell_id import LIBRARIES, hashed
from quantlab.records.schema import to_json
from quantlab.scoring import keywords
from quantlab.scoring.score import Scoring
from quantlab.util import source_hash
from quantlab.util.errors import ConfigError
from quantlab.util.machine import Site, here, versions


@dataclass(frozen=True)
class Identity:
    """What a grid knows of a cell before it is measured, and passes to the process that does."""

    id: str
    fingerprints: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)  # see `library_versions`
    corpus: Corpus | None = field(default=None, repr=False)  # None: listed in the measuring process
    opponent: Opponent | None = field(default=None, repr=False)  # protocol.looks; None: the whole corpus is measured


def identify(config: RunConfig) -> Identity:
    """Compute the identity of a cell outside a grid.

    Args:
        config: resolved, see `resolve`.

    Raises:
        ConfigError: a path is not a checkpoint or not a corpus.
        Unavailable: the corpus is neither on this machine nor on a reachable hub.
    """
    corpus = open_corpus(config.dataset)
    marks, versions = fingerprints(config, corpus.fingerprint, true_words(config, corpus)), library_versions(config)
    return Identity(hashed(config.model_dump(mode="json"), marks, versions), marks, versions, corpus)


def check_unchanged(config: RunConfig, known: Identity, corpus: Corpus) -> None:
    """Refuse a cell whose files changed since it was identified, so that the hashed files are the measured ones.

    Files are hashed again if their metadata changed, see `files.Digests`. Audio is not checked here: features are
    cached under the hash of their sources, and refuse files that changed after listing, see `mel`. Hub files are
    identified by their commit.

    Args:
        config: the identified configuration.
        known: its identity, see `identify`.
        corpus: the corpus to decode: that of `known`, or listed again.

    Raises:
        ConfigError: the message says what has changed.
    """
    marks = fingerprints(config, corpus.fingerprint_now(), true_words(config, corpus), checked=True)
    now = Identity(known.id, marks, library_versions(config))
    if changes := differences(known, now, "when it was planned", "now"):
        raise ConfigError(f"not the cell that was planned ({'; '.join(changes)}): run again")


class Marked(Protocol):
    """An object with fingerprints and versions."""

    @property
    def fingerprints(self) -> Mapping[str, str]: ...

    @property
    def versions(self) -> Mapping[str, str]: ...


def differences(was: Marked, now: Marked, then: str, here: str) -> list[str]:
    """The differences between two identities, in words; `then` and `here` label the two."""
    return [
        f"{what} {name}: {before.get(name)} {then}, {after.get(name)} {here}"
        for what, before, after in (
            ("version of", was.versions, now.versions),
            ("content of the", was.fingerprints, now.fingerprints),
        )
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def resolve(config: RunConfig, site: Site | None = None) -> RunConfig:
    """Replace `auto` and null by the device and thread count of a site; None means this machine."""
    name, site = config.device.name, site or here()
    device = site.device if name == "auto" else name
    threads = config.device.threads or max(1, site.threads // _sharers(config, device, site))
    update = {"device": config.device.model_copy(update={"name": device, "threads": threads})}
    return config.model_copy(update=update)


def _sharers(config: RunConfig, device: str, site: Site) -> int:
    """How many cells share the cores of the machine, where device.threads leaves that open."""
    if config.protocol.interleave:  # it is measured alone
        return 1
    if config.jobs == "auto":
        return max(1, site.gpus) if device == "cuda" else 1
    return config.jobs


def fingerprints(config: RunConfig, corpus: str, truth: Truth, checked: bool = False) -> dict[str, str]:
    """Content hashes of the checkpoint, the corpus and, if set, recipe, keywords, true word times, calibration data and
    the baseline's checkpoint.

    Args:
        config: resolved, see `resolve`.
        corpus: fingerprint of the corpus.
        truth: true times of its words, see `true_words`.
        checked: see `models.fingerprint`.

    Raises:
        ConfigError: `model.path` or `baseline.path` is not a checkpoint, or `dataset.keywords` no list of words.
    """
    found = {
        "checkpoint": models.fingerprint(config.model, config.seed, config.quant.library == AS_SHIPPED, checked),
        "corpus": corpus,
    }
    if config.quant.modules:
        found["recipe"] = _recipe_fingerprint(config.quant)
    if config.dataset.keywords is not None and config.model.weights != "random":
        found["keywords"] = keywords.fingerprint(keywords.read_keywords(config.dataset.keywords))
    if truth:
        found["words"] = fingerprint_of_words(truth)
    if (calibration := config.calibration_dataset) is not None:
        found["calibration"] = _calibration_fingerprint(calibration)
    if config.baseline.path is not None:
        found["baseline"] = _baseline_fingerprint(config, checked)
    return found


def _recipe_fingerprint(quant: QuantConfig) -> str:
    content = {key: getattr(quant, key) for key in ("method", "group_size", "act_order", "damping", "modules")}
    return hashlib.sha256(to_json(content).encode()).hexdigest()


def _calibration_fingerprint(dataset: DatasetConfig) -> str:
    try:
        return open_corpus(dataset).fingerprint
    except ConfigError as error:
        said = str(error).replace("dataset.path", "calibration.path")
        other = "if it has another name, set dataset.text_column"
        raise type(error)(said.replace(other, 'where audio has none, write "text": ""')) from None


def _baseline_fingerprint(config: RunConfig, checked: bool) -> str:
    try:
        return models.fingerprint(config.of_baseline().model, config.seed, checked=checked)
    except ConfigError as error:
        raise type(error)(str(error).replace("model.path=", "baseline.path=")) from None


def keywords_of(config: RunConfig, corpus: Corpus) -> tuple[str, ...] | None:
    """The keywords to count; None without `dataset.keywords`, or without text.

    Raises:
        ConfigError: they cannot be counted in this corpus (see `keywords.check_keywords`).
    """
    if config.dataset.keywords is None or config.model.weights == "random":
        return None
    words = keywords.read_keywords(config.dataset.keywords)
    references = [item.text for split in corpus.splits.values() for item in split]
    keywords.check_keywords(words, references, Scoring.of_language(config.dataset.language))
    return words


def library_versions(config: RunConfig) -> dict[str, str]:
    """Versions of all libraries that affect the figures of a cell, with source hashes for editable installs.

    quantlab counts by its version even in a checkout: a change to the report, say, changes no figure, and the record
    names the commit.
    """
    names = [*LIBRARIES, *registry.distributions(config.quant.library)]
    if config.quant.recover == "lora":
        names.append("peft")
    points = (registry.added(config.quant.library), added_reader(config.dataset.source))
    found = versions(names) | source_hash.of_editable(name for name in names if name != "quantlab")
    for point in points:
        found |= {} if point is None else source_hash.of_entry_point(point)
    return found
