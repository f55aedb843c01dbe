"""Utterances as a reader lists them: id, reference, location of the audio, digest."""

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
from quantlab.util.errors import ConfigError, did_you_mean, shortened
from quantlab.util.files import Digests

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


Listing = Mapping[str, Sequence[Utterance]]
Reader = Callable[[DatasetConfig], Listing]


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
            name: list(pool.map(partial(digested, digests), listing[name][: dataset.limit]))
            for name in chosen_splits(dataset, listing)
        }
    items = [item for split in splits.values() for item in split]
    if not any(item.digest for item in items):
        first = items[0].audio() if items else None
        raise ConfigError(f"dataset {dataset.name!r}: none of its {len(items)} audio files is there, e.g. {first!s}")
    return splits


def digested(digests: Digests, item: Utterance) -> Utterance:
    """An utterance whose file was hashed: one that its reader left without a digest, alone."""
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
    return digest_of([[item.id, item.text, item.speaker, item.digest, asdict(item.part)] for item in utterances])


def digest_of(value: object) -> str:
    """The SHA-256 of a value as JSON, in hexadecimal."""
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
