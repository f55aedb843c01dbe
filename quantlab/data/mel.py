"""Log-mel features by the model's own extractor: computed once per split and extractor, then memory-mapped.

    <cache_dir()>/features/<key>/mel.npy      float32, (utterances, mel bins, frames)
    <cache_dir()>/features/<key>/index.json   ids, references, speakers, seconds, problems

A row takes 4 × mel bins × frames bytes: 0.19 MB for the shipped model's 6 s, 0.96 MB for Whisper's 30 s at 80
mel bins (2.5 GB for LibriSpeech test-clean), 1.54 MB at 128. Nothing is evicted; delete the folder at will.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from quantlab.config import ConfigError
from quantlab.data.audio import SAMPLE_RATE, Clip, TooLongError, UnreadableAudioError, decode
from quantlab.data.corpus import Corpus, Utterance, split_digest
from quantlab.record import Problem, to_json

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

Mel = npt.NDArray[np.float32]
LAYOUT = 1  # of the cache; raise it when what is stored changes
STALE_S = 3600
EXTRACTOR = (  # what its features depend on
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
BATCH_S = 240  # seconds of window per call of the extractor; larger batches are slower, they leave the cache


@dataclass(frozen=True)
class SplitFeatures:
    """The measurable utterances of a split, or some of them; every field has one entry per utterance."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]  # raw references
    speakers: tuple[str | None, ...]
    audio_s: tuple[float, ...]  # seconds of real audio, not of the padded window
    stored: Mel  # the whole split on disk, (utterances, mel bins, frames)
    rows: tuple[int, ...]  # of `stored`

    @property
    def mel(self) -> Mel:
        """Features, float32, (utterances, mel bins, frames); not copied where the rows are consecutive."""
        first, count = (self.rows[0], len(self.rows)) if self.rows else (0, 0)
        if self.rows == tuple(range(first, first + count)):
            return self.stored[first : first + count]
        return self.stored[list(self.rows)]

    def batches(self, size: int) -> Iterator[SplitFeatures]:
        """Consecutive utterances, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self.rows), size):
            yield self.take(range(start, min(start + size, len(self.rows))))

    def take(self, positions: Sequence[int]) -> SplitFeatures:
        return SplitFeatures(
            ids=tuple(self.ids[i] for i in positions),
            texts=tuple(self.texts[i] for i in positions),
            speakers=tuple(self.speakers[i] for i in positions),
            audio_s=tuple(self.audio_s[i] for i in positions),
            stored=self.stored,
            rows=tuple(self.rows[i] for i in positions),
        )


@dataclass(frozen=True)
class Features:
    """What a cell measures: the splits that have a measurable utterance, and the utterances that are not."""

    splits: Mapping[str, SplitFeatures]
    problems: tuple[Problem, ...]

    def only(self, ids: Collection[str]) -> Features:
        """Those utterances; a split without any goes."""
        return self._filtered(set(ids), keep=True)

    def without(self, ids: Collection[str]) -> Features:
        """All but those utterances; a split of which nothing is left goes.

        Raises:
            ConfigError: nothing at all is left.
        """
        rest = self._filtered(set(ids), keep=False)
        if not rest.splits:
            raise ConfigError(
                f"calibration.source=disjoint leaves nothing to score: all {len(ids)} utterances calibrate; "
                "raise dataset.limit or lower calibration.fraction"
            )
        return rest

    def _filtered(self, ids: set[str], keep: bool) -> Features:
        splits = {
            name: split.take([i for i, id in enumerate(split.ids) if (id in ids) == keep])
            for name, split in self.splits.items()
        }
        return replace(self, splits={name: split for name, split in splits.items() if split.ids})


def cache_dir() -> Path:
    """$QUANTLAB_CACHE, else `quantlab` in $XDG_CACHE_HOME, else ~/.cache/quantlab."""
    own = os.environ.get("QUANTLAB_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "quantlab"


def features(corpus: Corpus, feature_extractor: WhisperFeatureExtractor, folder: Path | None = None) -> Features:
    """Features of a corpus, from the cache where this corpus and extractor met before.

    Args:
        corpus: see `open_corpus`.
        feature_extractor: the model's own; its window decides which clips are too long.
        folder: of the cache; `cache_dir()` if null. Processes may share it at any time.

    Raises:
        ConfigError: not one utterance can be measured.
        OSError: the cache cannot be written.
    """
    cache = (folder or cache_dir()) / "features"
    splits: dict[str, SplitFeatures] = {}
    problems: list[Problem] = []
    for name, utterances in corpus.splits.items():
        found = _split(cache / _key(utterances, feature_extractor), utterances, feature_extractor)
        # the cache knows the utterances, not what this corpus calls their split
        problems += [problem.model_copy(update={"split": name}) for problem in found.problems]
        if found.features.ids:
            splits[name] = found.features
    if not splits:
        named = "; ".join(f"{item.utterance}: {item.detail}" for item in problems[:3])
        raise ConfigError(f"none of the {len(problems)} utterances of {corpus.name} can be measured ({named})")
    return Features(splits, tuple(problems))


@dataclass(frozen=True)
class _Stored:
    features: SplitFeatures
    problems: tuple[Problem, ...]


def _key(utterances: Iterable[Utterance], feature_extractor: WhisperFeatureExtractor) -> str:
    facts = {
        "split": split_digest(utterances),
        "extractor": {name: getattr(feature_extractor, name) for name in EXTRACTOR},
        "layout": LAYOUT,
        "versions": [version(name) for name in ("transformers", "soundfile", "soxr")],
    }
    return hashlib.sha256(to_json(facts).encode()).hexdigest()[:32]


def _split(folder: Path, utterances: Sequence[Utterance], feature_extractor: WhisperFeatureExtractor) -> _Stored:
    stored = _open(folder)
    if stored is not None:
        return stored
    _sweep(folder)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.mkdir(parents=True)
    try:
        _extract(fresh, utterances, feature_extractor)
        stored = _open(fresh)  # a mapping outlives the renaming, and even the deletion, of its file
        _publish(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    assert stored is not None, fresh
    return stored


def _sweep(folder: Path) -> None:
    """Remove what is damaged, and what killed processes left; a living one writes several times a minute."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - (leftover / "mel.npy").stat().st_mtime > STALE_S:
                shutil.rmtree(leftover, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path) -> _Stored | None:
    """What is stored, or None where nothing whole is."""
    try:
        index = json.loads((folder / "index.json").read_text())
        mel = np.load(folder / "mel.npy", mmap_mode="r")
    except (OSError, ValueError):
        return None
    if len(mel) != len(index["ids"]):
        return None
    problems = tuple(Problem.model_validate(item) for item in index.pop("problems"))
    columns = {name: tuple(values) for name, values in index.items()}
    return _Stored(SplitFeatures(stored=mel, rows=tuple(range(len(mel))), **columns), problems)


def _publish(fresh: Path, folder: Path) -> None:
    """Put a whole folder in place at once; one that another process put there meanwhile is as good."""
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _extract(folder: Path, utterances: Sequence[Utterance], feature_extractor: WhisperFeatureExtractor) -> None:
    """Write `mel.npy` and `index.json`, a batch at a time: memory does not grow with the corpus."""
    kept: list[tuple[Utterance, float]] = []
    problems: list[Problem] = []
    window_s = feature_extractor.n_samples / SAMPLE_RATE
    size = max(1, int(BATCH_S / window_s))
    shape = (feature_extractor.feature_size, feature_extractor.nb_max_frames)
    with (folder / "mel.npy").open("wb") as file, ThreadPoolExecutor() as pool:
        _write_header(file, (len(utterances), *shape))
        for start in range(0, len(utterances), size):
            batch = utterances[start : start + size]
            clips: list[Clip] = []
            for utterance, outcome in zip(batch, pool.map(lambda item: _clip(item, window_s), batch), strict=True):
                if isinstance(outcome, Problem):
                    problems.append(outcome)
                else:
                    clips.append(outcome)
                    kept.append((utterance, outcome.seconds))
            if clips:
                file.write(_mel(clips, feature_extractor).tobytes())
        file.seek(0)
        _write_header(file, (len(kept), *shape))
    index = {
        "ids": [utterance.id for utterance, _ in kept],
        "texts": [utterance.text for utterance, _ in kept],
        "speakers": [utterance.speaker for utterance, _ in kept],
        "audio_s": [seconds for _, seconds in kept],
        "problems": [problem.model_dump() for problem in problems],
    }
    (folder / "index.json").write_text(json.dumps(index))


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    """A header has room for the first axis to grow, so it can be written again with the final count."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _clip(utterance: Utterance, window_s: float) -> Clip | Problem:
    def problem(kind: Any, detail: str) -> Problem:
        return Problem(utterance=utterance.id, split=utterance.split, kind=kind, detail=detail)

    if not any(letter.isalnum() for letter in utterance.text):
        return problem("empty reference", f"no word in {utterance.text!r}")
    try:
        return decode(utterance.audio, window_s)
    except UnreadableAudioError as error:
        return problem("unreadable", str(error))
    except TooLongError as error:
        return problem("too long", str(error))


def _mel(clips: Sequence[Clip], feature_extractor: WhisperFeatureExtractor) -> Mel:
    batch = feature_extractor(
        [clip.samples for clip in clips], sampling_rate=SAMPLE_RATE, return_tensors="np", padding="max_length"
    )
    return np.ascontiguousarray(batch.input_features, dtype="<f4")
