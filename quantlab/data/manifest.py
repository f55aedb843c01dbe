"""JSONL manifests, one utterance a line: `{"audio": PATH, "text": REFERENCE}`; `speaker`, `split`, `id` at will.

The corpus that ships with the project is such a manifest too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.config import DatasetConfig
from quantlab.data.corpus import Listing, Utterance, file_utterance, split_name, with_digests
from quantlab.errors import ConfigError, did_you_mean, shortened

ASSETS = Path(__file__).parents[1] / "assets"
DEFAULT_SPLIT = "test"


def read_shipped(dataset: DatasetConfig) -> Listing:
    """A corpus of the package's own assets, by its name.

    Raises:
        ConfigError: there is none of that name, or see `read_manifest`.
    """
    if dataset.path is not None:
        return read_manifest(dataset)
    there = {path.parent.name: str(path) for path in ASSETS.glob("*/manifest.jsonl")}
    if dataset.name not in there:
        hint = did_you_mean(dataset.name, list(there))
        raise ConfigError(f"dataset.name={dataset.name!r}: no such corpus ships with quantlab{hint}")
    return read_manifest(dataset.model_copy(update={"path": there[dataset.name]}))


def read_manifest(dataset: DatasetConfig) -> Listing:
    """Utterances by split, in the order of the file; paths are relative to the manifest's folder.

    Raises:
        ConfigError: no such file, or `file:line` of a line that is no utterance.
    """
    path = Path(dataset.path or "").expanduser()
    listing: dict[str, list[Utterance]] = {}
    seen: dict[str, int] = {}
    for number, row in _rows(path):
        try:
            utterance = _utterance(row, path.parent, dataset)
            first = seen.setdefault(utterance.id, number)
            if first != number:
                raise ConfigError(
                    f"id {shortened(utterance.id)} is line {first}'s too; give each line an id of its own"
                )
        except ConfigError as error:
            raise ConfigError(f"{path}:{number}: {error}") from None
        listing.setdefault(utterance.split, []).append(utterance)
    if not listing:
        raise ConfigError(f"{path} holds no utterance: one JSON object a line, e.g. {_EXAMPLE}")
    return with_digests(listing, dataset)


_EXAMPLE = '{"audio": "clips/1.flac", "text": "hello there"}'


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ConfigError(f"dataset.path={path}: {error.strerror}; expected a JSONL manifest") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"dataset.path={path} is no UTF-8 text ({error.reason}); expected a JSONL manifest") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}:{number}: no JSON ({error}); expected e.g. {_EXAMPLE}") from None


def _utterance(row: Any, folder: Path, dataset: DatasetConfig) -> Utterance:
    if not isinstance(row, dict):
        raise ConfigError(f"got a JSON {type(row).__name__}; expected an object, e.g. {_EXAMPLE}")
    audio = _required(row, dataset.audio_column, "dataset.audio_column")
    if "\0" in audio or not audio:
        raise ConfigError(f"{dataset.audio_column}={shortened(audio)} is no path")
    text = row.get(dataset.text_column)
    if text is None and dataset.text_column in row:
        text = ""  # reported as an utterance without a reference
    elif not isinstance(text, str):
        text = _required(row, dataset.text_column, "dataset.text_column")
    return file_utterance(
        folder / audio,
        id=_optional(row, dataset.id_column or "id") or audio,
        split=split_name(_optional(row, "split") or DEFAULT_SPLIT),
        text=text.encode("utf-8", "replace").decode("utf-8"),  # as it will be stored, so that scores follow from it
        speaker=_optional(row, dataset.speaker_column or "speaker"),
    )


def _required(row: dict[str, Any], key: str, option: str) -> str:
    if key not in row:
        raise ConfigError(
            f"no {key!r} among its keys {shortened(sorted(row), 200)}; if it has another name, set {option}"
        )
    if not isinstance(row[key], str):
        raise ConfigError(f"{key}={shortened(row[key])} is no string")
    return str(row[key])


def _optional(row: dict[str, Any], key: str) -> str | None:
    """Ids and speakers are often numbers; any scalar becomes text."""
    value = row.get(key)
    if isinstance(value, dict | list):
        raise ConfigError(f"{key}={shortened(value)} is neither a string nor a number")
    return None if value is None else str(value)
