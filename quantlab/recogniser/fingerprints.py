"""Resolved configuration, content fingerprints and id of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from quantlab import models
from quantlab.config.schema import AS_SHIPPED, RunConfig
from quantlab.data import Corpus, added_reader, open_corpus
from quantlab.quantization import registry
from quantlab.records.cell_id import LIBRARIES, hashed
from quantlab.util import source_hash
from quantlab.util.errors import ConfigError
from quantlab.util.machine import Site, here, versions


@dataclass(frozen=True)
class Identity:
    """What a cell is, found out once: a grid hands it to the process that measures the cell."""

    id: str
    fingerprints: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)  # see `library_versions`
    corpus: Corpus | None = field(default=None, repr=False)  # None: it is to be listed where it is decoded


def identify(config: RunConfig) -> Identity:
    """The identity of a cell that no grid has planned.

    Args:
        config: resolved, see `resolve`.

    Raises:
        ConfigError: a path is no checkpoint or no corpus.
        Unavailable: the corpus is neither here nor on a hub that can be reached.
    """
    corpus = open_corpus(config.dataset)
    marks, versions = fingerprints(config, corpus.fingerprint), library_versions(config)
    return Identity(hashed(config.model_dump(mode="json"), marks, versions), marks, versions, corpus)


def check_unchanged(config: RunConfig, known: Identity, corpus: Corpus) -> None:
    """Refuse a cell that is no longer the one that was identified: what was hashed must be what is measured.

    A file is hashed again where the file system tells that it has changed, see `files.Digests`. Audio is not looked at:
    features are kept under the hash of what they were made of, and are not made of a file that has changed since it was
    listed, see `mel`; nor are those files of a hub, whose commit stands for them.

    Args:
        config: as it was identified.
        known: see `identify`.
        corpus: what is decoded: that of `known`, or one that was listed again.

    Raises:
        ConfigError: what has changed.
    """
    now = Identity(known.id, fingerprints(config, corpus.fingerprint_now(), checked=True), library_versions(config))
    if told := differences(known, now, "when it was planned", "now"):
        raise ConfigError(f"not the cell that was planned ({'; '.join(told)}): run again")


class Marked(Protocol):
    """What has fingerprints and versions."""

    @property
    def fingerprints(self) -> Mapping[str, str]: ...

    @property
    def versions(self) -> Mapping[str, str]: ...


def differences(was: Marked, now: Marked, then: str, here: str) -> list[str]:
    """Why a cell is another one, each difference in words; `then` and `here` say when or where each is of."""
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
    """The configuration with the site's device and thread count in place of `auto` and null; None is this machine."""
    name, site = config.device.name, site or here()
    update = {
        "name": site.device if name == "auto" else name,
        "threads": config.device.threads or site.threads,
    }
    device = config.device.model_copy(update=update)
    return config.model_copy(update={"device": device})


def fingerprints(config: RunConfig, corpus: str, checked: bool = False) -> dict[str, str]:
    """Content hashes of the checkpoint, the corpus, and, where another checkpoint is the baseline, of that.

    Args:
        config: resolved, see `resolve`.
        corpus: its fingerprint.
        checked: see `models.fingerprint`.

    Raises:
        ConfigError: `model.path` or `baseline.path` is no checkpoint.
    """
    found = {
        "checkpoint": models.fingerprint(config.model, config.seed, config.quant.library == AS_SHIPPED, checked),
        "corpus": corpus,
    }
    if config.baseline.path is not None:
        found["baseline"] = _of_baseline(config, checked)
    return found


def _of_baseline(config: RunConfig, checked: bool) -> str:
    try:
        return models.fingerprint(config.of_baseline().model, config.seed, checked=checked)
    except ConfigError as error:
        raise type(error)(str(error).replace("model.path=", "baseline.path=")) from None


def library_versions(config: RunConfig) -> dict[str, str]:
    """Versions of everything that touches the figures of this cell; of what may change without one, its source too.

    quantlab's own version is what counts of it, also where it is worked on: a change to the report changes no figure,
    and the record names the commit.
    """
    names = [*LIBRARIES, *registry.distributions(config.quant.library)]
    points = (registry.added(config.quant.library), added_reader(config.dataset.source))
    found = versions(names) | source_hash.of_editable(name for name in names if name != "quantlab")
    for point in points:
        found |= {} if point is None else source_hash.of_entry_point(point)
    return found
