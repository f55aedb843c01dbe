"""Corpora: selected utterances and their fingerprint. No audio is decoded here."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from quantlab.config.schema import DatasetConfig
from quantlab.data.noise import noise_facts
from quantlab.data.readers.array import Array
from quantlab.data.readers.hub import Row, read_hub
from quantlab.data.readers.joined import Joined, read_joined
from quantlab.data.readers.librispeech import read_librispeech
from quantlab.data.readers.manifest import read_manifest, read_shipped
from quantlab.data.utterance import (
    Audio,
    File,
    Listing,
    Reader,
    Utterance,
    chosen_splits,
    digest_of,
    digested,
    split_digest,
    split_name,
    with_channel,
)
from quantlab.util.errors import ConfigError, did_you_mean, shortened
from quantlab.util.files import Digests

ENTRY_POINTS = "quantlab.datasets"
OWN_SOURCES: Mapping[str, Reader] = {
    "shipped": read_shipped,
    "joined": read_joined,
    "manifest": read_manifest,
    "librispeech_dir": read_librispeech,
    "hub": read_hub,
}


@dataclass(frozen=True)
class Corpus:
    dataset: DatasetConfig
    fingerprint: str  # hex hash of id, reference, speaker and audio of the selected utterances, and of the noise
    splits: Mapping[str, tuple[Utterance, ...]]

    @cached_property
    def is_pinned(self) -> bool:
        """Whether audio decoded later in another process is guaranteed to be the listed audio.

        True if each file was hashed, as features refuse a changed file, or if the listing or its table holds the
        samples. Audio from other callables of third-party readers is not pinned.
        """
        return all(_is_pinned(item.audio) for split in self.splits.values() for item in split)

    def fingerprint_now(self) -> str:
        """`fingerprint` of this listing and the current noise recordings."""
        return _fingerprint(self.dataset, self.splits)


def _is_pinned(audio: Audio) -> bool:
    if isinstance(audio, Joined):
        return all(_is_pinned(part.audio) for part in audio.parts)
    return isinstance(audio, Array | Row) or (isinstance(audio, File) and audio.digest is not None)


def open_corpus(dataset: DatasetConfig) -> Corpus:
    """List the utterances of a corpus: the requested splits, filtered by `ids`, then the first `limit` of each.

    Raises:
        ConfigError: the path, the source, a split, an id or a line of a manifest is invalid.
        Unavailable: a hub corpus is neither cached nor reachable.
    """
    listing = _listed(dataset)
    splits = {
        split_name(name): tuple(
            item if dataset.source == "joined" else with_channel(dataset, item)
            for item in listing[name][: dataset.limit]
        )  # a joined recording is mono; the channel was selected in its parts
        for name in chosen_splits(dataset, listing)
    }
    with Digests() as digests:  # for files that a third-party reader did not hash
        splits = {name: tuple(digested(digests, item) for item in split) for name, split in splits.items()}
    _check_ids(dataset, [item for split in splits.values() for item in split])
    return Corpus(dataset, _fingerprint(dataset, splits), splits)


def _listed(dataset: DatasetConfig) -> Listing:
    """The utterances by split, filtered by `ids` if set; splits without utterances are dropped.

    Raises:
        ConfigError: see `open_corpus`.
    """
    read = reader(dataset.source)
    if dataset.ids is None:
        return read(dataset)
    whole = read(dataset.model_copy(update={"limit": None}))
    wanted, names = set(dataset.ids), chosen_splits(dataset, whole)
    found = {name: [item for item in whole[name] if item.id in wanted] for name in names}
    if missing := wanted - {item.id for split in found.values() for item in split}:
        like = next(item.id for name in names for item in whole[name])
        strange = f"{dataset.name} has no utterance {shortened(min(missing))}"
        raise ConfigError(f"dataset.ids: {strange}; its ids look like {shortened(like)}")
    return {name: split for name, split in found.items() if split or dataset.splits is not None}


def _fingerprint(dataset: DatasetConfig, splits: Listing) -> str:
    utterances = {name: split_digest(split) for name, split in splits.items()}
    return digest_of(utterances if dataset.noise.kind is None else [utterances, noise_facts(dataset.noise)])


def reader(source: str) -> Reader:
    """The reader of a source: quantlab's own, or an entry point of another package.

    Raises:
        ConfigError: no reader of this name is installed.
    """
    if source in OWN_SOURCES:
        return OWN_SOURCES[source]
    others = _added(tuple(sys.path))
    if source not in others:
        raise ConfigError(f"dataset.source: no reader {source!r}{did_you_mean(source, [*OWN_SOURCES, *others])}")
    return others[source].load()


def added_reader(source: str) -> EntryPoint | None:
    """The entry point of a third-party reader; None for quantlab's own readers, or if there is none."""
    return None if source in OWN_SOURCES else _added(tuple(sys.path)).get(source)


@functools.lru_cache(maxsize=1)
def _added(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Readers of other packages, cached: searching all packages installed on `path` takes 20 ms."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _check_ids(dataset: DatasetConfig, utterances: Sequence[Utterance]) -> None:
    seen: dict[str, str] = {}
    for item in utterances:
        if item.id in seen:
            raise ConfigError(
                f"dataset {dataset.name!r} has two utterances {shortened(item.id)} (splits {seen[item.id]}, "
                f"{item.split}): ids must be unique; name a column that is with dataset.id_column"
            )
        seen[item.id] = item.split
