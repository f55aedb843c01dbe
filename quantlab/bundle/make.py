"""Making of a bundle from exported models and a corpus."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantlab.bundle import layout
from quantlab.bundle.clips import Clips, write_clips
from quantlab.bundle.layout import BUNDLE, HOME, MODELS, BundleFile, Features, HomeFile, HomeModel, Model
from quantlab.bundle.portable import describe, engine_of, is_of_engine
from quantlab.bundle.readme import readme
from quantlab.config.parse import parse_config
from quantlab.config.quant import QuantConfig
from quantlab.config.schema import DatasetConfig, RunConfig
from quantlab.data import Corpus, open_corpus
from quantlab.export import manifest as manifests
from quantlab.export.manifest import Manifest
from quantlab.recogniser.fingerprints import keywords_of
from quantlab.records import storage
from quantlab.records.bundle import without_places
from quantlab.records.schema import Record
from quantlab.scoring import keywords
from quantlab.util.errors import ConfigError, ExportError
from quantlab.util.machine import versions
from quantlab.util.redact import bare

FLOATS_16 = ("f16", "float16", "bfloat16")  # formats
AUDIO = ("soundfile", "soxr")  # distributions that decode the audio


@dataclass(frozen=True)
class Export:
    """An exported model and the record of its cell."""

    folder: Path
    manifest: Manifest
    record: Record


@dataclass(frozen=True)
class Made:
    """A bundle that was written."""

    clips: Clips
    corpus: Corpus
    baselines: tuple[str, ...]  # labels of the models that others are compared with


def read_export(folder: Path, root: Path) -> Export:
    """Read an export and its record.

    Raises:
        ConfigError: it is no intact export of an engine that a bundle can hold, or has no record.
    """
    try:
        manifest = manifests.read(folder)
    except (ExportError, OSError) as error:
        raise ConfigError(f"{error}; a bundle is made of folders that quantlab export wrote") from None
    engine_of(folder, manifest)
    try:
        record = storage.read(root, manifest.cell_id)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None
    if record is None or record.receipt is None or record.status != "ok":
        raise ConfigError(
            f"{folder} is of cell {manifest.cell_id}, which is not measured in {root}; its receipt and settings are "
            "needed: --root DIR names the folder of its records"
        )
    return Export(folder, manifest, record)


def make(exports: Sequence[Export], dataset: DatasetConfig | None, folder: Path) -> Made:
    """Write a bundle.

    Args:
        exports: its models; all need the same features.
        dataset: its corpus; None: that of the first export's cell.
        folder: the new folder.

    Raises:
        ConfigError: exports that do not go together or with the corpus, no utterance, or the folder cannot be written.
    """
    if folder.exists():
        raise ConfigError(f"--out {folder} exists: name another folder, or delete it")
    if len({item.manifest.cell_id for item in exports}) < len(exports):
        raise ConfigError("the same cell is exported twice among these folders: name each once")
    config = _with_dataset(exports[0], dataset)
    corpus = open_corpus(config.dataset)
    _check_corpus(exports, config.dataset)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        fresh.mkdir(parents=True)
        made = _fill(fresh, exports, config, corpus)
        fresh.rename(folder)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror}; name another folder") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return made


def _with_dataset(export: Export, dataset: DatasetConfig | None) -> RunConfig:
    """The configuration of an export's cell, with another corpus."""
    own = export.record.config
    return parse_config(own if dataset is None else own | {"dataset": dataset.model_dump(mode="json")})


def _check_corpus(exports: Sequence[Export], dataset: DatasetConfig) -> None:
    if dataset.long is not None:
        raise ConfigError(f"dataset.long={dataset.long}: the clips of a bundle are single windows: leave it out")
    for item in exports:
        language = item.manifest.decoding.language
        if language not in (None, dataset.language):
            raise ConfigError(
                f"{item.folder} was measured in language {language!r}, the corpus is in {dataset.language!r}: measure "
                f"and export it with dataset.language={dataset.language}"
            )


def _fill(folder: Path, exports: Sequence[Export], config: RunConfig, corpus: Corpus) -> Made:
    features, filters = _features(exports)
    disjoint = [item.record for item in exports if item.record.setting("calibration.source") == "disjoint"]
    left_out = [id for record in disjoint for id in record.calibration_ids]
    clips = write_clips(folder, corpus, features.n_samples, left_out)
    np.save(folder / layout.FILTERS, filters)
    models = tuple(_write_model(folder, number, item) for number, item in enumerate(exports))
    words = keywords_of(config, corpus)
    home = HomeFile(
        models=tuple(_home_model(number, exports) for number in range(len(exports))),
        clips=clips.home,
        dataset=without_places(config.model_dump(mode="json"))["dataset"],
        corpus=clips.corpus,
        keywords=words,
        keywords_mark=None if words is None else keywords.fingerprint(words),
        problems=clips.problems,
        versions=versions(AUDIO),
    )
    (folder / layout.HOME_FILE).write_text(home.model_dump_json(indent=1) + "\n", encoding="utf-8")
    _write_script(folder, exports)
    found = BundleFile(models=models, clips=clips.files, features=features, files=_digests(folder))
    found = found.model_copy(update={"own": layout.digest_of(found.model_dump(mode="json"))})
    (folder / BUNDLE).write_text(found.model_dump_json() + "\n", encoding="utf-8")
    bases = dict.fromkeys(item.baseline for item in home.models if item.baseline is not None)
    labels = tuple(models[number].label for number in bases)
    (folder / layout.README).write_text(readme(found, labels), encoding="utf-8")
    return Made(clips, corpus, labels)


def _features(exports: Sequence[Export]) -> tuple[Features, Any]:
    """Settings and mel filter bank, (frequencies, mel bins), that all exports share."""
    from transformers import WhisperFeatureExtractor

    found = []
    for item in exports:
        own = WhisperFeatureExtractor.from_pretrained(item.folder, local_files_only=True)
        if own.dither or own.padding_value:
            raise ConfigError(f"{item.folder}: its features have dither or padding, which a bundle does not compute")
        settings = Features(n_samples=own.n_samples, n_fft=own.n_fft, hop_length=own.hop_length)
        found.append((settings, np.asarray(own.mel_filters, np.float64)))
    for item, (settings, filters) in zip(exports, found, strict=True):
        if settings != found[0][0] or not np.array_equal(filters, found[0][1]):
            raise ConfigError(
                f"{item.folder} needs other features than {exports[0].folder} (window or mel bins): make a bundle of "
                "each"
            )
    return found[0]


def _write_model(folder: Path, number: int, export: Export) -> Model:
    """Copy the files of an export: those of the engine, and the others for home."""
    engine = engine_of(export.folder, export.manifest)
    place = f"{MODELS}/{number}"
    for parent in (place, f"{HOME}/{number}"):
        (folder / parent).mkdir(parents=True)
    for name in export.manifest.files:
        of_engine = is_of_engine(engine, name)
        if of_engine or name.startswith(("tokenizer", "special_tokens", "added_tokens", "vocab", "merges")):
            shutil.copyfile(export.folder / name, folder / (place if of_engine else f"{HOME}/{number}") / name)
    return describe(export.folder, export.manifest, place)


def _home_model(number: int, exports: Sequence[Export]) -> HomeModel:
    item = exports[number]
    record = storage.public(item.record)
    assert record.receipt is not None  # see read_export
    return HomeModel(
        cell_id=record.cell_id,
        config=bare(without_places(record.config)),
        fingerprints=record.fingerprints,
        original=record.original,
        receipt=record.receipt,
        versions=item.manifest.versions,
        calibration_ids=record.calibration_ids,
        tokenizer=f"{HOME}/{number}",
        baseline=_baseline(number, exports),
    )


def _baseline(number: int, exports: Sequence[Export]) -> int | None:
    """The model that one is compared with: the first of its checkpoint in fp32, else the first in 16-bit floats."""

    def bits(quant: QuantConfig) -> int | None:
        return 32 if quant.scheme == "none" else 16 if quant.format in FLOATS_16 else None

    checkpoint = exports[number].record.fingerprints["checkpoint"]
    same = [index for index, item in enumerate(exports) if item.record.fingerprints["checkpoint"] == checkpoint]
    for wanted in (32, 16):
        if found := [index for index in same if bits(exports[index].manifest.quant) == wanted]:
            return found[0]
    return None


def _write_script(folder: Path, exports: Sequence[Export]) -> None:
    shutil.copyfile(Path(__file__).with_name(layout.SCRIPT), folder / layout.SCRIPT)
    needed = {}
    for item in exports:
        package = engine_of(item.folder, item.manifest).package
        version = item.manifest.versions.get(package)
        needed[package] = package if version is None else f"{package}=={version}"
    (folder / layout.REQUIREMENTS).write_text("\n".join(["numpy", *sorted(needed.values())]) + "\n")


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): layout.sha256(path) for path in files}


def short(digest: str | None) -> str:
    """The beginning of a bundle's digest, by which messages name it."""
    return (digest or hashlib.sha256().hexdigest())[:8]
