"""Corpora: selected utterances and their fingerprint. No audio is decoded here."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    heard_by,
    split_digest,
    split_name,
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
    fingerprint: str  # of every utterance selected: id, reference, speaker, audio; of the noise, if any; hex
    splits: Mapping[str, tuple[Utterance, ...]]

    @property
    def is_pinned(self) -> bool:
        """Whether audio that is decoded later, in another process, is known to be the audio that was listed.

        It is where each file was hashed, as features refuse one that has changed, and where the listing or the table
        behind it holds the samples. What else a reader of another package may call is known to that package alone.
        """
        return all(_is_pinned(item.audio) for split in self.splits.values() for item in split)

    def fingerprint_now(self) -> str:
        """`fingerprint`, of this listing and of the noise as it lies there now."""
        return _fingerprint(self.dataset, self.splits)


def _is_pinned(audio: Audio) -> bool:
    if isinstance(audio, Joined):
        return all(_is_pinned(part.audio) for part in audio.parts)
    return isinstance(audio, Array | Row) or (isinstance(audio, File) and audio.digest is not None)


def open_corpus(dataset: DatasetConfig) -> Corpus:
    """List the utterances of a corpus: the splits asked for, of each those of `ids`, the first `limit` of them.

    Raises:
        ConfigError: the path, the source, a split, an id or a line of a manifest is wrong.
        Unavailable: a hub corpus that is neither cached nor within reach.
    """
    listing = _listed(dataset)
    splits = {
        split_name(name): tuple(
            item if dataset.source == "joined" else heard_by(dataset, item) for item in listing[name][: dataset.limit]
        )  # a joined recording has one channel, out of those chosen of its parts
        for name in chosen_splits(dataset, listing)
    }
    with Digests() as digests:  # of what a reader of another package has left without
        splits = {name: tuple(digested(digests, item) for item in split) for name, split in splits.items()}
    _check_ids(dataset, [item for split in splits.values() for item in split])
    return Corpus(dataset, _fingerprint(dataset, splits), splits)


def _listed(dataset: DatasetConfig) -> Listing:
    """The utterances by split; where ids are chosen, those alone, and the splits that have one of them.

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
        raise ConfigError(f"dataset.ids: {strange}; its ids are like {shortened(like)}")
    return {name: split for name, split in found.items() if split or dataset.splits is not None}


def _fingerprint(dataset: DatasetConfig, splits: Listing) -> str:
    utterances = {name: split_digest(split) for name, split in splits.items()}
    return digest_of(utterances if dataset.noise.kind is None else [utterances, noise_facts(dataset.noise)])


def reader(source: str) -> Reader:
    """The function that lists the corpora of a source: quantlab's own, or another package's entry point.

    Raises:
        ConfigError: nobody provides this source.
    """
    if source in OWN_SOURCES:
        return OWN_SOURCES[source]
    others = _added(tuple(sys.path))
    if source not in others:
        raise ConfigError(f"dataset.source: no reader {source!r}{did_you_mean(source, [*OWN_SOURCES, *others])}")
    return others[source].load()


def added_reader(source: str) -> EntryPoint | None:
    """Where another package's reader of a source is; None for quantlab's own, and where there is none."""
    return None if source in OWN_SOURCES else _added(tuple(sys.path)).get(source)


@functools.lru_cache(maxsize=1)
def _added(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Of other packages. Looking through all that are installed on `path` takes 20 ms, and a grid asks often."""
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
