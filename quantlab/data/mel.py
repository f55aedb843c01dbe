"""Log-mel features from the model's own extractor, cached per split and extractor.

    <cache_dir()>/features/<key>/mel.npy      float32, (rows, mel bins, frames)
    <cache_dir()>/features/<key>/index.json   ids, references, speakers, seconds, problems

An utterance is one window, except for long recordings: `dataset.long` cuts them into windows or leaves them whole. The
features of a whole recording are extracted at once and stored as consecutive rows of the same length.

A row takes 4 × mel bins × frames bytes: 0.19 MB for the shipped model's 6 s, 0.96 MB for Whisper's 30 s at 80
mel bins (2.5 GB for LibriSpeech test-clean), 1.54 MB at 128. Nothing is evicted; the folder can be deleted any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantlab.config.schema import DatasetConfig
from quantlab.data.audio import SAMPLE_RATE
from quantlab.data.corpus import Corpus
from quantlab.data.noise import noise_of
from quantlab.data.readers.joined import Joined
from quantlab.data.speech import Features, Mel, SplitFeatures, rows_for
from quantlab.data.utterance import File, Utterance, file_digest, split_digest
from quantlab.data.windows import Window, Windowed, Windower, feature_settings
from quantlab.records.schema import Problem, to_json
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError
from quantlab.util.files import Digests, cache_dir

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

LAYOUT = 3  # version of the cache; raise it when the stored data changes
STALE_S = 3600
EXTRACTOR = (  # settings that its features depend on
    "feature_size",
    "sampling_rate",
    "hop_length",
    "n_fft",
    "n_samples",
    "nb_max_frames",
    "dither",
    "padding_value",
    "padding_side",
)
BATCH_S = 240  # seconds of audio per call of the extractor; larger batches exceed the CPU cache and are slower


def features(corpus: Corpus, feature_extractor: WhisperFeatureExtractor, folder: Path | None = None) -> Features:
    """Features of a corpus, from the cache if present.

    Args:
        corpus: see `open_corpus`.
        feature_extractor: the model's own; its window determines which clips are too long.
        folder: cache folder, which processes may share; None: `cache_dir()`.

    Raises:
        ConfigError: no utterance can be measured, or the cache cannot be written.
    """
    cache = (folder or cache_dir()) / "features"
    splits: dict[str, SplitFeatures] = {}
    problems: list[Problem] = []
    for name, utterances in corpus.splits.items():
        source = _Source(utterances, corpus.dataset, feature_extractor)
        try:
            found = _split(cache / source.key, source)
        except OSError as error:
            raise ConfigError(
                f"the cache {cache} cannot be written: {error.strerror}; set QUANTLAB_CACHE to a folder that can"
            ) from None
        # the cache holds utterances; split names come from this corpus
        problems += [problem.model_copy(update={"split": name}) for problem in found.problems]
        if found.features.ids:
            splits[name] = found.features
    if not splits:
        named = "; ".join(f"{item.utterance}: {item.detail}" for item in problems[:3])
        raise ConfigError(
            f"no utterance of {corpus.dataset.name} can be measured ({counted(len(problems), 'problem')}: {named})"
        )
    return Features(splits, tuple(problems))


def entries(corpus: Corpus, feature_extractor: WhisperFeatureExtractor, folder: Path | None = None) -> list[Path]:
    """The cache folders for the features of a corpus, existing or not: one per split."""
    cache = (folder or cache_dir()) / "features"
    return [cache / _Source(split, corpus.dataset, feature_extractor).key for split in corpus.splits.values()]


@dataclass(frozen=True)
class _Source:
    """Everything the features of a split depend on."""

    utterances: Sequence[Utterance]
    dataset: DatasetConfig
    feature_extractor: WhisperFeatureExtractor

    @property
    def key(self) -> str:
        facts = {
            "split": split_digest(self.utterances),
            "extractor": {name: getattr(self.feature_extractor, name) for name in EXTRACTOR},
            "layout": LAYOUT,
            "versions": [version(name) for name in ("transformers", "soundfile", "soxr")],
            **feature_settings(self.dataset),
        }
        return hashlib.sha256(to_json(facts).encode()).hexdigest()[:32]

    @property
    def batch(self) -> int:
        """Windows per call of the extractor."""
        return max(1, int(BATCH_S * SAMPLE_RATE / self.feature_extractor.n_samples))


@dataclass(frozen=True)
class _Stored:
    features: SplitFeatures
    problems: tuple[Problem, ...]


def _split(folder: Path, source: _Source) -> _Stored:
    stored = _open(folder)
    if stored is not None:
        return stored
    _sweep(folder)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.mkdir(parents=True)
    try:
        _extract(fresh, source)
        _check_unchanged(source, folder.name)
        stored = _open(fresh)  # the memory map stays valid when the file is renamed or deleted
        _publish(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    assert stored is not None, fresh
    return stored


def _check_unchanged(source: _Source, key: str) -> None:
    """Refuse features of files that changed after they were hashed for the key.

    Raises:
        ConfigError: a file has changed.
    """
    with Digests() as digests:
        for item in (part for utterance in source.utterances for part in _parts(utterance)):
            audio = item.audio
            if isinstance(audio, File) and audio.digest not in (None, file_digest(digests, audio.path)):
                raise ConfigError(f"{audio.path} changed after it was listed: run again")
    if source.key != key:
        raise ConfigError(f"the noise in {source.dataset.noise.path} changed after it was listed: run again")


def _parts(utterance: Utterance) -> Sequence[Utterance]:
    return utterance.audio.parts if isinstance(utterance.audio, Joined) else [utterance]


def _sweep(folder: Path) -> None:
    """Remove damaged entries and leftovers of killed processes; a live process writes several times a minute."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - (leftover / "mel.npy").stat().st_mtime > STALE_S:
                shutil.rmtree(leftover, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path) -> _Stored | None:
    """Open a cache entry; None if it is missing or incomplete."""
    try:
        index = json.loads((folder / "index.json").read_text())
        mel = np.load(folder / "mel.npy", mmap_mode="r")
    except (OSError, ValueError):
        return None
    counts = [rows_for(audio_s, mel.shape[2]) for audio_s in index["audio_s"]]
    if len(mel) != sum(counts):
        return None
    problems = tuple(Problem.model_validate(item) for item in index.pop("problems"))
    columns = {name: tuple(values) for name, values in index.items()}
    rows = tuple(accumulate(counts[:-1], initial=0)) if counts else ()
    return _Stored(SplitFeatures(stored=mel, rows=rows, **columns), problems)


def _publish(fresh: Path, folder: Path) -> None:
    """Move a complete folder into place; one that another process published meanwhile is equivalent."""
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _extract(folder: Path, source: _Source) -> None:
    """Write `mel.npy` and `index.json` batch by batch, so that memory does not grow with the corpus."""
    kept: list[_Row] = []
    count = 0
    problems: list[Problem] = []
    shape = (source.feature_extractor.feature_size, source.feature_extractor.nb_max_frames)
    with (folder / "mel.npy").open("wb") as file:
        _write_header(file, (len(source.utterances), *shape))
        for batch in _batches(source):
            windows: list[Window] = []
            for utterance, taken in batch:
                problems += taken.problems
                windows += taken.windows
                kept += [_Row(utterance, window.audio_s, window.new_s) for window in taken.windows]
            for start in range(0, len(windows), source.batch):
                rows = log_mel(windows[start : start + source.batch], source.feature_extractor)
                count += len(rows)
                file.write(rows.tobytes())
        file.seek(0)
        _write_header(file, (count, *shape))
    index = {
        "ids": [row.utterance.id for row in kept],
        "texts": [row.utterance.text for row in kept],
        "speakers": [row.utterance.speaker for row in kept],
        "audio_s": [row.audio_s for row in kept],
        "new_s": [row.new_s for row in kept],
        "problems": [problem.model_dump() for problem in problems],
    }
    (folder / "index.json").write_text(json.dumps(index))


@dataclass(frozen=True)
class _Row:
    utterance: Utterance
    audio_s: float
    new_s: float


def _batches(source: _Source) -> Iterator[list[tuple[Utterance, Windowed]]]:
    """Batches of utterances with their windows that fit into memory; long recordings come one at a time."""
    window_s = source.feature_extractor.n_samples / SAMPLE_RATE
    hearing = Windower(source.dataset, source.utterances, window_s, noise_of(source.dataset.noise))
    size = source.batch if source.dataset.long is None else 1
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(source.utterances), size):
            batch = source.utterances[start : start + size]
            yield list(zip(batch, pool.map(hearing.take, batch), strict=True))


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    """Write a .npy header; it has spare room, so it can be rewritten with the final number of rows."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def log_mel(windows: Sequence[Window], feature_extractor: WhisperFeatureExtractor) -> Mel:
    """Features: one row per window, or as many as needed for a recording that is left whole."""
    rows = max(rows_for(window.audio_s, feature_extractor.nb_max_frames) for window in windows)
    batch = feature_extractor(
        [window.samples for window in windows],
        sampling_rate=SAMPLE_RATE,
        return_tensors="np",
        padding="max_length",
        max_length=rows * feature_extractor.n_samples,
    )
    return np.ascontiguousarray(np.concatenate(np.split(batch.input_features, rows, axis=2)), dtype="<f4")
