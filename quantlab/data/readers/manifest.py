"""Manifests: one utterance per row with audio and reference; optional speaker, split, id and more.

The shipped corpus uses lines of `{"audio": PATH, "text": REFERENCE}`. NeMo manifests, Common Voice tables, lhotse cuts
and Kaldi folders are read too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantlab.config.schema import DatasetConfig
from quantlab.data.readers import kaldi, keys, lhotse, tables, words
from quantlab.data.readers.array import Array
from quantlab.data.readers.tables import EXAMPLE, FORMATS, Row
from quantlab.data.utterance import Listing, Part, Utterance, file_utterance, split_name, with_digests
from quantlab.records.schema import to_json
from quantlab.util.errors import ConfigError, did_you_mean, shortened
from quantlab.util.resources import ASSETS

DEFAULT_SPLIT = "test"
# Keys that describe how shipped audio was generated.
MADE = ("noise", "reverb", "seen_voice", "level_db", "followed_by")
CLIPS = "clips"  # folder of the audio of Common Voice's tables


def read_shipped(dataset: DatasetConfig) -> Listing:
    """Read a shipped corpus by its name.

    Raises:
        ConfigError: there is no corpus of that name; or see `read_manifest`.
    """
    dataset = dataset.model_copy(update={"ignored_columns": (*dataset.ignored_columns, *MADE)})
    if dataset.path is not None:
        return read_manifest(dataset)
    there = {path.parent.name: str(path) for path in ASSETS.glob("*/manifest.jsonl")}
    if dataset.name not in there:
        hint = did_you_mean(dataset.name, list(there))
        raise ConfigError(f"dataset.name={dataset.name!r}: no such corpus ships with quantlab{hint}")
    return read_manifest(dataset.model_copy(update={"path": there[dataset.name]}))


def read_manifest(dataset: DatasetConfig) -> Listing:
    """Utterances by split, in file order; paths are relative to the manifest's folder.

    Raises:
        ConfigError: no such file, or a line that is not an utterance (`file:line`).
    """
    path = Path(dataset.path or "").expanduser()
    folder = path if path.is_dir() else path.parent
    listing: dict[str, list[Utterance]] = {}
    seen: dict[str, str] = {}
    for row in _rows(path):
        try:
            utterance = _utterance(row, folder, dataset)
            first = seen.setdefault(utterance.id, row.place)
            if first != row.place:
                where = f"line {first.rpartition(':')[2]}" if ":" in first else first
                raise ConfigError(f"id {shortened(utterance.id)} is also used by {where}; give each line a unique id")
        except ConfigError as error:
            raise ConfigError(f"{row.place}: {error}") from None
        listing.setdefault(utterance.split, []).append(utterance)
    if not listing:
        raise ConfigError(f"{path} holds no utterance: expected {FORMATS}, e.g. {EXAMPLE}")
    return with_digests(listing, dataset)


def _rows(path: Path) -> Iterator[Row]:
    if not path.is_dir():
        return tables.rows(path)
    if kaldi.is_kaldi(path):
        return kaldi.rows(path)
    try:
        names = sorted(item.name for item in path.iterdir())
    except OSError as error:
        raise ConfigError(f"dataset.path={path}: {error.strerror}") from None
    raise ConfigError(
        f"dataset.path={path} is a folder without wav.scp; expected a manifest in it ({FORMATS}), or "
        f"dataset=librispeech_dir; found {shortened(names, 200)}"
    )


def _utterance(row: Row, folder: Path, dataset: DatasetConfig) -> Utterance:
    values = row.values
    if not isinstance(values, dict):
        raise ConfigError(f"got a JSON {type(values).__name__}; expected an object, e.g. {EXAMPLE}")
    values = keys.without_ignored(values, dataset)
    if lhotse.is_lhotse(values):
        values = lhotse.row(values)
    audio_key = _column(values, dataset.audio_column, keys.AUDIO, "dataset.audio_column")
    text_key = _column(values, dataset.text_column, keys.TEXT, "dataset.text_column")
    speaker_key = keys.column(values, dataset.speaker_column, keys.SPEAKER, "dataset.speaker_column")
    keys.check(values, (audio_key, text_key, speaker_key, dataset.id_column, words.KEY), dataset)
    split = split_name(_optional(values, "split") or DEFAULT_SPLIT)
    audio = _audio(values, audio_key)
    part = _part(values, audio)
    name = audio["path"] or f"{split} {row.place.rpartition(':')[2]}"
    found = file_utterance(
        _place(folder, name),
        id=_optional(values, dataset.id_column or "id") or name + _segment(values),
        split=split,
        text=_text(values, text_key),
        speaker=None if speaker_key is None else _optional(values, speaker_key),
        part=part,
    )
    found = replace(found, words=words.spoken_words(values))
    if audio["array"] is None:
        return found
    digest = hashlib.sha256(to_json([audio["array"], audio["sampling_rate"]]).encode()).hexdigest()
    return replace(found, audio=Array(audio["array"], audio["sampling_rate"]), digest=digest)


def _column(values: dict[str, Any], asked: str, names: tuple[str, ...], option: str) -> str:
    found = keys.column(values, asked, names, option)
    if found is None:
        there = shortened(sorted(map(str, values)), 200)
        raise ConfigError(f"no {asked!r} among its keys {there}; if it has another name, set {option}")
    return found


def _audio(values: dict[str, Any], key: str) -> dict[str, Any]:
    """The path of the audio, or the audio itself as written by `datasets`."""
    audio: dict[str, Any] = {"path": None, "array": None, "sampling_rate": None}
    if isinstance(values[key], dict):
        audio |= values[key]
        other = sorted(set(audio) - {"path", "array", "sampling_rate", "bytes"})
        if other or audio.get("bytes") is not None:
            raise ConfigError(
                f"{key} with {shortened((other or ['bytes'])[0])}: expected path, or array and sampling_rate"
            )
        if audio["array"] is not None:
            return audio | {"path": audio["path"] if isinstance(audio["path"], str) else None}
    else:
        audio["path"] = values[key]
    if not isinstance(audio["path"], str):
        raise ConfigError(f"{key}={shortened(audio['path'])} is not a string")
    if not audio["path"] or "\0" in audio["path"]:
        raise ConfigError(f"{key}={shortened(audio['path'])} is not a path")
    return audio


def _part(values: dict[str, Any], audio: dict[str, Any]) -> Part:
    """The part of the file; the sampling rate may be stated by the row or by the audio value itself."""
    part = keys.part(values)
    own = None if audio["array"] is not None else keys.part({"sampling_rate": audio.get("sampling_rate")}).rate
    if None not in (own, part.rate) and own != part.rate:
        raise ConfigError(f"sampling_rate={own} and {part.rate} disagree")
    return replace(part, rate=part.rate or own)


def _place(folder: Path, name: str) -> Path:
    """The path of an audio file: allows backslashes (Windows) and the folder `clips` (Common Voice)."""
    slashed = folder / name.replace("\\", "/")
    return next(filter(_exists, (folder / name, slashed, folder / CLIPS / name)), slashed)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no file system can hold such a path
        return False


def _segment(values: dict[str, Any]) -> str:
    """Id suffix that distinguishes segments of one file: `@2.628+1.83#0` for offset, duration and channel."""
    marks = zip("@+#", keys.SEGMENT, strict=True)
    return "".join(f"{mark}{values[key]}" for mark, key in marks if values.get(key) is not None)


def _text(values: dict[str, Any], key: str) -> str:
    """The reference exactly as it will be stored; an empty one is reported as a problem."""
    text = values[key]
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)  # references of digits are read as numbers
    if not isinstance(text, str | None):
        hint = ": write it as text, in quotes" if isinstance(text, float) else ""
        raise ConfigError(f"{key}={shortened(text)} is not a string{hint}")
    return (text or "").encode("utf-8", "replace").decode("utf-8")


def _optional(values: dict[str, Any], key: str) -> str | None:
    """An id or speaker; numbers become strings."""
    value = values.get(key)
    if isinstance(value, dict | list):
        raise ConfigError(f"{key}={shortened(value)} is neither a string nor a number")
    return None if value is None else str(value)
