"""Complete records from what a bundle measured: texts, counts, figures, receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from quantlab import models
from quantlab.bundle.layout import BundleFile, HomeFile, HomeModel, read_bundle
from quantlab.bundle.measure import WARM_UP
from quantlab.bundle.measured import MeasuredFile, Turn, read_measured, results_in
from quantlab.data import Features, SplitFeatures
from quantlab.measurement.interference import flags
from quantlab.measurement.recordings import scored
from quantlab.records.cell_id import hashed
from quantlab.records.figures import speed, split_result
from quantlab.records.schema import Batch, Bundled, CellResult, Noise, Record, Stages, Utterance, to_json
from quantlab.scoring.score import Scoring
from quantlab.util.errors import ConfigError
from quantlab.util.machine import versions

PROTOCOL = "bundle"  # protocol.name of the records
HERE = ("quantlab", "transformers", "tokenizers", "jiwer", "whisper-normalizer")  # what makes texts and counts


def complete(folder: Path) -> Iterator[CellResult]:
    """The records of all results in a bundle's folder: one for each model and device.

    Raises:
        ConfigError: the bundle or a result is damaged, or they do not belong together.
    """
    bundle, home = read_bundle(folder)
    for path in results_in(folder):
        measured = read_measured(path, bundle)
        try:
            for number in range(len(bundle.models)):
                yield _Cell(folder, bundle, home, measured, number).result()
        except ValueError as error:
            raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None


@dataclass(frozen=True)
class _Cell:
    """A model on a device."""

    folder: Path
    bundle: BundleFile
    home: HomeFile
    measured: MeasuredFile
    number: int  # of the model

    @property
    def model(self) -> HomeModel:
        return self.home.models[self.number]

    @property
    def baseline(self) -> _Cell | None:
        """The cell that it is compared with."""
        if (number := self.model.baseline) is None:
            return None
        return _Cell(self.folder, self.bundle, self.home, self.measured, number)

    def turns(self) -> Iterator[Turn]:
        """Its turns, in order; the first is that of the first pass."""
        return (turn for turn in self.measured.turns if turn.model == self.number)

    def config(self) -> dict[str, Any]:
        """The configuration of the cell that was exported, on this device and corpus."""
        own, threads = self.model.config, next(self.turns()).environment.threads
        in_turns = self.measured.rounds > 1 and self.model.baseline is not None
        how = {"name": PROTOCOL, "batch_size": 1, "warmup_batches": WARM_UP, "interleave": in_turns}
        how |= {"residency": "alternate", "looks": None, "stops": "verdict"}
        # the device decodes whole clips, and times no words
        runtime = {key: value for key, value in own["runtime"].items() if key not in ("word_times", "streaming")}
        return own | {
            "runtime": runtime,
            "device": {"name": self.measured.device, "threads": threads, "pin": False},
            "dataset": self.home.dataset,
            "protocol": own["protocol"] | how,
        }

    def fingerprints(self) -> dict[str, str]:
        """Content hashes; `model` is that of the files that the engine read."""
        place = f"{self.bundle.models[self.number].folder}/"
        listed = self.bundle.files.items()
        files = {name.removeprefix(place): digest for name, digest in listed if name.startswith(place)}
        marks = self.model.fingerprints | {
            "corpus": self.home.corpus,
            "model": hashlib.sha256(to_json(files).encode()).hexdigest(),
        }
        marks.pop("keywords", None)
        return marks if self.home.keywords_mark is None else marks | {"keywords": self.home.keywords_mark}

    def versions(self) -> dict[str, str]:
        """Versions of what made the model, the clips, the texts and counts (here), and of what decoded (there)."""
        there = next(self.turns()).environment.versions
        decoded = {name: there[name] for name in ("numpy", self.bundle.models[self.number].package) if name in there}
        return self.model.versions | self.home.versions | versions(HERE) | decoded

    def cell_id(self) -> str:
        """Id of the record."""
        return hashed(self.config(), self.fingerprints(), self.versions())

    def result(self) -> CellResult:
        """The record with its raw samples."""
        first = next(self.turns())
        scoring = Scoring.of_language(self.home.dataset["language"])
        limit = self.bundle.models[self.number].decoding.max_new_tokens
        speech, rows = self._speech(), [list(call.tokens) for call in first.calls]
        texts = _texts(self.folder / self.model.tokenizer, rows)
        utterances, doubts = scored(speech, rows, texts, limit, scoring, self.home.keywords)
        batches = tuple(self._batches())
        config = self.config()
        baseline = self.baseline
        record = Record(
            cell_id=self.cell_id(),
            status="ok",
            created_at=self.measured.created_at,
            config=config,
            fingerprints=self.fingerprints(),
            original=self.model.original,
            environment=first.environment.model_dump(mode="json") | {"device": "cpu", "versions": self.versions()},
            receipt=self.model.receipt,
            stages=Stages(
                load_s=first.load_s, features_s=first.features_s, first_inference_s=first.first_s,
                warmup_s=first.warm_up_s, measure_s=sum(call.elapsed_s for call in first.calls),
            ),
            peak_memory_bytes=_most([turn.peak_memory_bytes for turn in self.turns()]),
            speed=speed(batches, "natural", config["protocol"]["rel_ci"]),
            noise=_noise(list(self.turns())),
            bundle=Bundled(
                digest=self.measured.bundle,
                source=self.model.cell_id,
                baseline=None if baseline is None else baseline.cell_id(),
                unquantized=None if baseline is None else baseline.model.quant.format or "fp32",
            ),
            normaliser=scoring.normaliser,
            error_unit=scoring.unit,
            keywords=self.home.keywords,
            calibration_ids=self.model.calibration_ids,
            problems=(*self.home.problems, *doubts),
            splits={name: _figures(name, utterances, batches) for name in speech.splits},
        )  # fmt: skip
        return CellResult(record=record, utterances=utterances, batches=batches)

    def _speech(self) -> Features:
        """The clips as single windows, without features."""
        clips = list(zip(self.home.clips, self.bundle.clips, strict=True))
        splits = {}
        for name, group in groupby(clips, key=lambda clip: clip[0].split):
            some = list(group)
            audio_s = tuple(file.audio_s for _, file in some)
            splits[name] = SplitFeatures(
                ids=tuple(clip.id for clip, _ in some),
                texts=tuple(clip.text for clip, _ in some),
                speakers=tuple(clip.speaker for clip, _ in some),
                audio_s=audio_s,
                new_s=audio_s,
                stored=np.zeros((len(some), 1, 1), np.float32),
                rows=tuple(range(len(some))),
            )
        return Features(splits, self.home.problems)

    def _batches(self) -> Iterator[Batch]:
        """The timed calls: its own, and those of the baseline in the same rounds."""
        for turn in self.measured.turns:
            if turn.model == self.number:
                yield from self._calls(turn, "cell")
            elif turn.round is not None and turn.model == self.model.baseline:
                yield from self._calls(turn, "baseline")

    def _calls(self, turn: Turn, of: Any) -> Iterator[Batch]:
        index: dict[str, int] = {}
        for call, clip, file in zip(turn.calls, self.home.clips, self.bundle.clips, strict=True):
            number = index[clip.split] = index.get(clip.split, -1) + 1
            yield Batch(
                split=clip.split, index=number, utterances=1, audio_s=file.audio_s, tokens=len(call.tokens),
                elapsed_s=call.elapsed_s, of=of, block=turn.round,
            )  # fmt: skip


def _texts(folder: Path, rows: Sequence[Sequence[int]]) -> list[str]:
    """Texts of token ids by the tokenizer of the export."""
    from transformers import WhisperTokenizer

    tokenizer: Any = WhisperTokenizer.from_pretrained(folder, local_files_only=True)
    most = max((token for row in rows for token in row), default=0)
    if most >= len(tokenizer):
        raise ValueError(f"token {most} is not one of the {len(tokenizer):,} of the model: measure again")
    return models.texts(tokenizer, rows)


def _figures(name: str, utterances: Sequence[Utterance], batches: Sequence[Batch]) -> Any:
    return split_result(
        [item for item in utterances if item.split == name], [item for item in batches if item.split == name]
    )


def _most(found: Sequence[int | None]) -> int | None:
    known = [item for item in found if item is not None]
    return max(known, default=None)


def _noise(turns: Sequence[Turn]) -> Noise:
    """Interference over all turns of a model."""
    found = [turn.noise for turn in turns]
    available_s = sum(item.available_s for item in found)
    ranges = [item.frequency_mhz for item in found if item.frequency_mhz is not None]
    noise = Noise(
        steal_share=_share([item.steal_s for item in found], available_s),
        other_load_share=_share([item.other_s for item in found], available_s),
        frequency_mhz=(min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None,
    )
    return noise.model_copy(update={"flags": flags(noise, available_s)})


def _share(seconds: Sequence[float | None], available_s: float) -> float | None:
    known = [item for item in seconds if item is not None]
    return min(1.0, sum(known) / available_s) if len(known) == len(seconds) and available_s else None
