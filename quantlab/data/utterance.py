"""Utterances as listed by a reader: id, reference, location of the audio, digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from quantlab.config.schema import DatasetConfig
from quantlab.records.schema import to_json
from quantlab.records.word_times import SpokenWord
from quantlab.util.errors import ConfigError, did_you_mean, shortened
from quantlab.util.files import Digests

SPLIT_NAME = re.compile(r"\w[\w .+-]{0,59}")


class Audio(Protocol):
    """Source of the audio of one utterance; called when it is decoded."""

    def __call__(self) -> bytes | Path:
        """The encoded audio: a file path or bytes."""


@dataclass(frozen=True)
class File:
    """Audio in a file."""

    path: Path
    digest: str | None = None  # of the content when listed; "": there was no file, None: not hashed

    def __call__(self) -> Path:
        return self.path


@dataclass(frozen=True)
class Part:
    """The part of the audio that an utterance is, and the stated properties of the whole; None if not stated."""

    offset_s: float = 0.0
    duration_s: float | None = None  # None: to the end
    channel: int | None = None  # from 0; None: the average of all
    rate: int | None = None  # Hz, of the whole
    channels: int | None = None
    frames: int | None = None
    seconds: float | None = None


WHOLE = Part()


@dataclass(frozen=True)
class Utterance:
    id: str  # unique in the corpus
    split: str
    text: str  # the raw reference
    speaker: str | None
    audio: Audio
    digest: str  # depends on the audio, not on its location
    part: Part = WHOLE  # part of the audio
    words: tuple[SpokenWord, ...] | None = None  # of the reference, with true times; None: unknown


Listing = Mapping[str, Sequence[Utterance]]
Reader = Callable[[DatasetConfig], Listing]


def with_channel(dataset: DatasetConfig, item: Utterance) -> Utterance:
    """The utterance with the channel selected by the configuration.

    Raises:
        ConfigError: the listing names another channel.
    """
    asked, own = dataset.channel, item.part.channel
    if asked is None or own == asked:
        return item
    if own is not None:
        raise ConfigError(
            f"dataset.channel={asked}: {shortened(item.id)} sets channel {own} itself; leave dataset.channel=null"
        )
    return replace(item, part=replace(item.part, channel=asked))


def chosen_splits(dataset: DatasetConfig, available: Iterable[str]) -> tuple[str, ...]:
    """The splits to measure, in the requested order.

    Raises:
        ConfigError: there is no such split, or no split at all.
    """
    names = tuple(available)
    for name in dataset.splits or ():
        if name not in names:
            raise ConfigError(f"dataset.splits: {dataset.name} has no split {name!r}{did_you_mean(name, list(names))}")
    chosen = names if dataset.splits is None else tuple(dict.fromkeys(dataset.splits))
    if not chosen:
        raise ConfigError(f"dataset {dataset.name!r} has no utterance: nothing to measure")
    return chosen


def file_utterance(path: Path, *, id: str, split: str, text: str, speaker: str | None, part: Part = WHOLE) -> Utterance:
    """An utterance whose audio is a file; a missing file is reported when it is decoded."""
    return Utterance(id, split, text, speaker, File(path), digest="", part=part)


def with_digests(listing: Listing, dataset: DatasetConfig) -> Listing:
    """Hash the audio files of the utterances that will be measured.

    Raises:
        ConfigError: none of the files exists, so the path is probably wrong.
    """
    with Digests() as digests, ThreadPoolExecutor() as pool:
        splits = {
            name: list(pool.map(partial(digested, digests), listing[name][: dataset.limit]))
            for name in chosen_splits(dataset, listing)
        }
    items = [item for split in splits.values() for item in split]
    if not any(item.digest for item in items):
        first = items[0].audio() if items else None
        many = f"none of its {len(items)} audio files exists, e.g."
        none = "its audio file does not exist:" if len(items) == 1 else many
        raise ConfigError(f"dataset {dataset.name!r}: {none} {first!s}")
    return splits


def digested(digests: Digests, item: Utterance) -> Utterance:
    """Hash the file of an utterance, unless its reader did."""
    if not isinstance(item.audio, File) or item.audio.digest is not None or item.digest:
        return item
    audio = hashed(digests, item.audio.path)
    return replace(item, audio=audio, digest=audio.digest or "")


def hashed(digests: Digests, path: Path) -> File:
    """A file with the hash of its current content."""
    return File(path, file_digest(digests, path))


def file_digest(digests: Digests, path: Path) -> str:
    """The hash of a file's content; empty if it cannot be opened."""
    try:
        return digests.of(path)
    except (OSError, ValueError):  # ValueError: a path that no file system can hold
        return ""


def split_digest(utterances: Iterable[Utterance]) -> str:
    """A hash of everything a split's features and references depend on, except file locations."""
    return digest_of([[item.id, item.text, item.speaker, item.digest, asdict(item.part)] for item in utterances])


def digest_of(value: object) -> str:
    """The SHA-256 of a value as JSON, hex."""
    return hashlib.sha256(to_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def split_name(name: str) -> str:
    """Validate the name of a split, which is used in names of figures, tables and MLflow metrics.

    Raises:
        ConfigError: the name is not allowed.
    """
    if not SPLIT_NAME.fullmatch(name):
        raise ConfigError(
            f"split {shortened(name)}: expected 1 to 60 letters, digits, spaces and any of . _ + -, "
            "the first one a letter or a digit"
        )
    return name
