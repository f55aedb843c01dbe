"""Corpora on the Hugging Face hub: Parquet files of the requested splits at one revision.

`datasets` reads the files, but does not choose them: `load_dataset(repo, config)` would fetch every split of a
configuration, which for LibriSpeech includes 60 GB of training data.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.config.schema import DatasetConfig, HubSplit
from quantlab.data.audio import UnreadableAudioError
from quantlab.data.readers import keys
from quantlab.data.readers.array import as_wav
from quantlab.data.utterance import Listing, Utterance, chosen_splits, hashed
from quantlab.util import hub
from quantlab.util.errors import ConfigError, Unavailable, shortened
from quantlab.util.files import Digests, cache_dir


@dataclass(frozen=True)
class Row:
    """Audio in a row of a memory-mapped table."""

    table: Any  # datasets.Dataset, its audio column not decoded
    column: str
    index: int
    dtype: str | None = None  # dtype of the samples if the column holds arrays

    def __call__(self) -> bytes:
        audio = self.table[self.index][self.column] or {}
        if self.dtype is not None:
            return as_wav(audio.get("array"), audio.get("sampling_rate"), self.dtype)
        if audio.get("bytes") is None:
            raise UnreadableAudioError(f"row {self.index} has no audio")
        return bytes(audio["bytes"])


def read_hub(dataset: DatasetConfig) -> Listing:
    """Utterances by split, in file order.

    `dataset.path`, a local clone of the repository, takes precedence over the hub.

    Raises:
        ConfigError: no such split, file or column.
        Unavailable: neither cached nor reachable.
    """
    if not dataset.hub_splits:
        raise ConfigError(f"dataset {dataset.name!r} names no split: set dataset.hub_splits.NAME.split")
    listing = {}
    for name in chosen_splits(dataset, dataset.hub_splits):
        folder, files = _files(dataset, dataset.hub_splits[name])
        source = _source(dataset, folder, files)
        table = _table(dataset, files, source)
        _check_complete(dataset, dataset.hub_splits[name], folder, len(table))
        listing[name] = _utterances(dataset, name, table, source, folder)
    return listing


def _files(dataset: DatasetConfig, split: HubSplit) -> tuple[Path, list[Path]]:
    """The Parquet files of a split, and the folder of their revision."""
    if dataset.path is not None:
        folder = Path(dataset.path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"dataset.path={folder} is not a folder; expected a clone of {dataset.repo}")
    elif dataset.repo is None:
        raise ConfigError(f"dataset {dataset.name!r} names no hub repository: set dataset.repo, or dataset.path")
    else:
        folder = _snapshot(dataset, dataset.revision, split, ["README.md"])
        folder = _snapshot(dataset, folder.name, split, _patterns(folder, split))
    files = _matches(folder, split)
    if not files:
        raise ConfigError(
            f"{dataset.repo or folder} has no Parquet file of config {split.config!r}, split {split.split!r} "
            f"(looked for {', '.join(_patterns(folder, split))})"
        )
    return folder, files


def parquet_files(dataset: DatasetConfig) -> list[Path]:
    """The files of the requested splits.

    Raises: see `read_hub`.
    """
    names = chosen_splits(dataset, dataset.hub_splits)
    return [file for name in names for file in _files(dataset, dataset.hub_splits[name])[1]]


def _snapshot(dataset: DatasetConfig, revision: str | None, split: HubSplit, patterns: Sequence[str]) -> Path:
    assert dataset.repo is not None  # ensured by _files
    ways_out = (
        "fetch it where the hub is reachable, with the same arguments: "
        f"quantlab fetch dataset={dataset.name} …; or take another corpus: "
        "dataset=librispeech_dir dataset.path=FOLDER, dataset=manifest dataset.path=FILE, or dataset=demo"
    )
    return hub.snapshot(dataset.repo, revision, "dataset", patterns, lambda folder: _whole(folder, split), ways_out)


def _matches(folder: Path, split: HubSplit) -> list[Path]:
    patterns = _patterns(folder, split)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.parquet")}
    return [files[name] for name in sorted(files) if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def _whole(folder: Path, split: HubSplit) -> bool:
    """Whether a cached folder has all files of a split, judging by names like `test-00000-of-00002`."""
    names = [path.name for path in _matches(folder, split)]
    counts = [int(found[1]) for name in names if (found := re.search(r"-of-(\d+)", name))]
    return len(names) >= max(counts, default=1)


def _patterns(folder: Path, split: HubSplit) -> list[str]:
    """Globs of a split's files: from the repository's README, else the hub's usual layouts."""
    for config in _entries(_card(folder).get("configs")):
        if split.config in (None, config.get("config_name")):
            for files in _entries(config.get("data_files")):
                if files.get("split") == split.split:
                    path = files.get("path")
                    return [str(item) for item in path] if isinstance(path, list) else [str(path)]
    base = f"{split.config or 'data'}/{split.split}"
    return [f"{base}/*.parquet", f"{base}-*.parquet"]


def _entries(value: object) -> list[Mapping[str, Any]]:
    """The mappings in a README value that may be one mapping or a list of them."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _card(folder: Path) -> Mapping[str, Any]:
    """The YAML metadata of the repository's README; empty if there is none."""
    import huggingface_hub
    import yaml

    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        if (folder / "README.md").is_file():
            return huggingface_hub.metadata_load(folder / "README.md") or {}
    return {}


def _check_complete(dataset: DatasetConfig, split: HubSplit, folder: Path, rows: int) -> None:
    """Check the number of rows against the README, since a download interrupted between two files looks complete."""
    for info in _entries(_card(folder).get("dataset_info")) if dataset.path is None else []:
        for entry in _entries(info.get("splits")) if split.config in (None, info.get("config_name")) else []:
            expected = entry.get("num_examples", rows)
            if entry.get("name") == split.split and expected != rows:
                raise Unavailable(
                    f"{dataset.repo} split {split.split}: only {rows} of {expected} rows are on this machine; "
                    f"where there is a network, `hf download --repo-type dataset {dataset.repo}`"
                )


def _table(dataset: DatasetConfig, files: Sequence[Path], source: str) -> Any:
    import datasets

    # its own cache key is path and mtime, which another file can share
    own = None if dataset.path is None else cache_dir() / "parquet" / hashlib.sha256(source.encode()).hexdigest()[:32]

    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:  # not load_dataset, which sends usage statistics first
        table = datasets.Dataset.from_parquet([str(file) for file in files], cache_dir=own and str(own))
    except Exception as error:  # each layer of the reader raises different types
        why = str(error.__cause__ or error)
        raise ConfigError(f"dataset {dataset.name!r}: {_named(files)} cannot be read: {why}") from error
    finally:
        if not quiet:
            datasets.enable_progress_bars()
    for option in ("audio_column", "text_column", "speaker_column", "id_column"):
        column = getattr(dataset, option)
        if column is not None and column not in table.column_names:
            raise ConfigError(f"dataset.{option}={column}: no such column; there are {', '.join(table.column_names)}")
    changing = filter(keys.affects_audio, table.column_names)
    keys.refuse([name for name in changing if not keys.is_ignored(name, dataset)])
    return (
        table
        if _samples_type(dataset, table)
        else table.cast_column(dataset.audio_column, datasets.Audio(decode=False))
    )


def _samples_type(dataset: DatasetConfig, table: Any) -> str | None:
    """The dtype of samples in a column of arrays with sampling rates; None if the column holds files.

    Raises:
        ConfigError: it holds neither.
    """
    found = table.data.schema.field(dataset.audio_column).type
    names = {found.field(index).name for index in range(found.num_fields)} if str(found).startswith("struct") else set()
    if str(found) in ("string", "large_string"):  # paths
        return None
    if "bytes" in names:
        return None
    if {"array", "sampling_rate"} <= names:
        samples = found.field("array").type
        while hasattr(samples, "value_type"):
            samples = samples.value_type
        return str(samples.to_pandas_dtype().__name__)
    raise ConfigError(
        f"dataset.audio_column={dataset.audio_column} holds {shortened(str(found))}: expected encoded audio "
        "(bytes, path), or an array with its sampling_rate"
    )


def _named(files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} or another of its {len(files)} files"


def _source(dataset: DatasetConfig, folder: Path, files: Sequence[Path]) -> str:
    """What identifies the audio: the commit, or for a local clone the files' names and content."""
    if dataset.path is None:
        return f"{dataset.repo}@{folder.name}"
    try:
        with Digests() as digests:
            return " ".join(f"{file.relative_to(folder).as_posix()}:{digests.of(file)}" for file in files)
    except OSError as error:
        raise ConfigError(f"dataset {dataset.name!r}: {error.filename} cannot be read: {error.strerror}") from None


def _utterances(dataset: DatasetConfig, split: str, table: Any, source: str, folder: Path) -> list[Utterance]:
    columns = [dataset.text_column, dataset.speaker_column, dataset.id_column]
    rows = table.select(range(min(len(table), dataset.limit or len(table))))
    values = rows.select_columns([column for column in columns if column is not None])[:]

    def value(column: str | None, index: int) -> str | None:
        item = None if column is None else values[column][index]
        if not isinstance(item, str | int | None) and column == dataset.text_column:
            raise ConfigError(f"dataset.text_column={column} holds {shortened(item)}: expected text")
        return None if item is None else str(item)

    _check_language(dataset, rows)
    dtype = _samples_type(dataset, table)
    alone = table.select_columns([dataset.audio_column])  # so that reading a row decodes no other column
    with Digests() as digests:
        audio = [
            hashed(digests, folder / path) if path else Row(alone, dataset.audio_column, index, dtype)
            for index, path in enumerate(_paths(rows, dataset.audio_column))
        ]
    return [
        Utterance(
            id=value(dataset.id_column, index) or f"{split}-{index:06d}",
            split=split,
            text=value(dataset.text_column, index) or "",
            speaker=value(dataset.speaker_column, index),
            audio=item,
            digest=f"{source} {index}" if isinstance(item, Row) else f"{item.digest}",
        )
        for index, item in enumerate(audio)
    ]


def _check_language(dataset: DatasetConfig, rows: Any) -> None:
    """Refuse rows labelled with another language; only codes are compared, not names as in FLEURS."""
    for name in keys.LANGUAGE:
        if name in rows.column_names and not keys.is_ignored(name, dataset):
            for language in sorted(map(str, set(rows.select_columns([name])[:][name]))):
                if re.fullmatch(r"[A-Za-z]{2,3}([-_]\w+)?", language):
                    keys.check_language(name, language, dataset)


def _paths(rows: Any, column: str) -> list[str | None]:
    """For each row, the audio file beside the table; None if the row holds the audio."""
    kind = rows.data.schema.field(column).type
    if "bytes" not in {kind.field(index).name for index in range(kind.num_fields)}:
        return [None] * len(rows)
    found: list[str | None] = []
    for chunk in rows.with_format("arrow")[:].column(column).chunks:
        held, paths = chunk.field("bytes").is_valid().to_pylist(), chunk.field("path").to_pylist()
        found += [None if is_held else path for is_held, path in zip(held, paths, strict=True)]
    return found
