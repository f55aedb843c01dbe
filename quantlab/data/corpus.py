"""A corpus as a listing: which utterances, their references, where the audio lies. Nothing is decoded here."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from quantlab.config import DatasetConfig
from quantlab.content import Digests
from quantlab.errors import ConfigError, did_you_mean, shortened
from quantlab.record import to_json

ENTRY_POINTS = "quantlab.datasets"
OWN_SOURCES = ("shipped", "joined", "manifest", "librispeech_dir", "hub")
SPLIT_NAME = re.compile(r"\w[\w .+-]{0,59}")


class Audio(Protocol):
    """Where the audio of one utterance is; called when it is decoded."""

    def __call__(self) -> bytes | Path:
        """The encoded audio: a file, or its bytes."""


@dataclass(frozen=True)
class File:
    """Audio in a file of its own."""

    path: Path
    digest: str | None = None  # of its content when it was listed; "" where there was none, null: not looked at

    def __call__(self) -> Path:
        return self.path


@dataclass(frozen=True)
class Part:
    """Which part of its audio an utterance is, and what its listing says of the whole; null where it says nothing."""

    offset_s: float = 0.0
    duration_s: float | None = None  # null: to the end
    channel: int | None = None  # from 0; null: the average of all
    rate: int | None = None  # Hz, of the whole
    channels: int | None = None
    frames: int | None = None
    seconds: float | None = None


WHOLE = Part()


@dataclass(frozen=True)
class Utterance:
    id: str  # unique in the corpus
    split: str
    text: str  # the reference, as it was written
    speaker: str | None
    audio: Audio
    digest: str  # changes with the audio, not with where it lies
    part: Part = WHOLE  # of that audio


@dataclass(frozen=True)
class Corpus:
    dataset: DatasetConfig
    fingerprint: str  # of every utterance selected: id, reference, speaker, audio; of the noise, if any; hex
    splits: Mapping[str, tuple[Utterance, ...]]


Listing = Mapping[str, Sequence[Utterance]]
Reader = Callable[[DatasetConfig], Listing]


def open_corpus(dataset: DatasetConfig) -> Corpus:
    """List the utterances of a corpus: the splits asked for, the first `limit` of each.

    Raises:
        ConfigError: the path, the source, a split or a line of a manifest is wrong.
        Unavailable: a hub corpus that is neither cached nor within reach.
    """
    listing = reader(dataset.source)(dataset)
    splits = {
        split_name(name): tuple(
            item if dataset.source == "joined" else heard_by(dataset, item) for item in listing[name][: dataset.limit]
        )  # a joined recording has one channel, out of those chosen of its parts
        for name in chosen_splits(dataset, listing)
    }
    with Digests() as digests:  # of what a reader of another package has left without
        splits = {name: tuple(_digested(digests, item) for item in split) for name, split in splits.items()}
    _check_ids(dataset, [item for split in splits.values() for item in split])
    return Corpus(dataset, _fingerprint(dataset, splits), splits)


def heard_by(dataset: DatasetConfig, item: Utterance) -> Utterance:
    """The utterance with the channel that the configuration chooses.

    Raises:
        ConfigError: its listing names another one.
    """
    asked, own = dataset.channel, item.part.channel
    if asked is None or own == asked:
        return item
    if own is not None:
        raise ConfigError(
            f"dataset.channel={asked}: {shortened(item.id)} has channel {own} of its own; leave dataset.channel=null"
        )
    return replace(item, part=replace(item.part, channel=asked))


def _fingerprint(dataset: DatasetConfig, splits: Listing) -> str:
    from quantlab.data.noise import noise_facts

    utterances = {name: split_digest(split) for name, split in splits.items()}
    return _hash(utterances if dataset.noise.kind is None else [utterances, noise_facts(dataset.noise)])


def chosen_splits(dataset: DatasetConfig, available: Iterable[str]) -> tuple[str, ...]:
    """The splits to measure, in the order asked for.

    Raises:
        ConfigError: there is no such split, or none at all.
    """
    names = tuple(available)
    for name in dataset.splits or ():
        if name not in names:
            raise ConfigError(f"dataset.splits: {dataset.name} has no split {name!r}{did_you_mean(name, list(names))}")
    chosen = names if dataset.splits is None else tuple(dict.fromkeys(dataset.splits))
    if not chosen:
        raise ConfigError(f"dataset {dataset.name!r} has no utterance: nothing to measure")
    return chosen


def reader(source: str) -> Reader:
    """The function that lists the corpora of a source: quantlab's own, or another package's entry point.

    Raises:
        ConfigError: nobody provides this source.
    """
    from quantlab.data.hub import read_hub
    from quantlab.data.joined import read_joined
    from quantlab.data.librispeech import read_librispeech
    from quantlab.data.manifest import read_manifest, read_shipped

    readers = (read_shipped, read_joined, read_manifest, read_librispeech, read_hub)
    own: dict[str, Reader] = dict(zip(OWN_SOURCES, readers, strict=True))
    if source in own:
        return own[source]
    others = _added(tuple(sys.path))
    if source not in others:
        raise ConfigError(f"dataset.source: no reader {source!r}{did_you_mean(source, [*own, *others])}")
    return others[source].load()


def added_reader(source: str) -> EntryPoint | None:
    """Where another package's reader of a source is; None for quantlab's own, and where there is none."""
    return None if source in OWN_SOURCES else _added(tuple(sys.path)).get(source)


@functools.lru_cache(maxsize=1)
def _added(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Of other packages. Looking through all that are installed on `path` takes 20 ms, and a grid asks often."""
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def file_utterance(path: Path, *, id: str, split: str, text: str, speaker: str | None, part: Part = WHOLE) -> Utterance:
    """An utterance whose audio is a file; one that is not there is named when it is decoded."""
    return Utterance(id, split, text, speaker, File(path), digest="", part=part)


def with_digests(listing: Listing, dataset: DatasetConfig) -> Listing:
    """Digest the audio files, of those utterances alone that will be measured.

    Raises:
        ConfigError: not one of the files exists, so the path is wrong and not the corpus.
    """
    with Digests() as digests, ThreadPoolExecutor() as pool:
        splits = {
            name: list(pool.map(partial(_digested, digests), listing[name][: dataset.limit]))
            for name in chosen_splits(dataset, listing)
        }
    items = [item for split in splits.values() for item in split]
    if not any(item.digest for item in items):
        first = items[0].audio() if items else None
        raise ConfigError(f"dataset {dataset.name!r}: none of its {len(items)} audio files is there, e.g. {first!s}")
    return splits


def _digested(digests: Digests, item: Utterance) -> Utterance:
    if not isinstance(item.audio, File) or item.audio.digest is not None or item.digest:
        return item
    audio = hashed(digests, item.audio.path)
    return replace(item, audio=audio, digest=audio.digest or "")


def hashed(digests: Digests, path: Path) -> File:
    """A file as it is now."""
    return File(path, file_digest(digests, path))


def file_digest(digests: Digests, path: Path) -> str:
    """The hash of a file's content; empty when it cannot be opened."""
    try:
        return digests.of(path)
    except (OSError, ValueError):  # ValueError: a path that no file system can hold
        return ""


def split_digest(utterances: Iterable[Utterance]) -> str:
    """A hash of what a split's features and references depend on, independent of where its files lie."""
    return _hash([[item.id, item.text, item.speaker, item.digest, asdict(item.part)] for item in utterances])


def _hash(value: object) -> str:
    return hashlib.sha256(to_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def split_name(name: str) -> str:
    """The name of a split as it is: it becomes that of figures, in tables and in MLflow.

    Raises:
        ConfigError: it can be none.
    """
    if not SPLIT_NAME.fullmatch(name):
        raise ConfigError(
            f"split {shortened(name)}: expected 1 to 60 letters, digits, spaces and any of . _ + -, "
            "the first one a letter or a digit"
        )
    return name


def _check_ids(dataset: DatasetConfig, utterances: Sequence[Utterance]) -> None:
    seen: dict[str, str] = {}
    for item in utterances:
        if item.id in seen:
            raise ConfigError(
                f"dataset {dataset.name!r} has two utterances {shortened(item.id)} (splits {seen[item.id]}, "
                f"{item.split}): ids must be unique; name a column that is with dataset.id_column"
            )
        seen[item.id] = item.split
