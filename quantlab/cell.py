"""One cell, start to end: load → quantize → calibrate → verify → warm up → measure → score → record.

A plain function, without Hydra and without MLflow: a notebook calls `run_cell(config)` and gets the result.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn

from quantlab import models, quantizers, receipt, score
from quantlab.config import RunConfig
from quantlab.data import Corpus, Features, SplitFeatures, calibration_ids, features, open_corpus
from quantlab.engines.pytorch import Engine, engine
from quantlab.environment import describe
from quantlab.figures import split_result
from quantlab.identity import cell_id, fingerprints, resolve
from quantlab.measure import Clocks, Memory, use_threads
from quantlab.record import Batch, CellResult, Receipt, Record, SplitResult, Utterance

Progress = Callable[[str, int, int], None]  # stage, utterances done, utterances in all


class NotQuantizedError(RuntimeError):
    """The library left modules alone that it was told to quantize; the receipt names them."""

    def __init__(self, evidence: Receipt) -> None:
        super().__init__("not quantized as asked: " + "; ".join(evidence.problems))
        self.receipt = evidence


@dataclass(frozen=True)
class Speech:
    """The features a cell works on."""

    measured: Features
    calibration: Features
    calibration_ids: tuple[str, ...]


@dataclass(frozen=True)
class Timed:
    """One timed batch and the token ids that came out of it."""

    batch: Batch
    tokens: list[list[int]]


def run_cell(config: RunConfig, progress: Progress = lambda stage, done, total: None) -> CellResult:
    """Quantize a recogniser and measure it on a corpus.

    Args:
        config: the cell; `auto` and null are resolved for this machine first.
        progress: called between batches, never inside the timed region.

    Returns:
        The record and its raw samples; nothing is written.

    Raises:
        NotQuantizedError: the model is not what the configuration asked for.
        Unavailable: the checkpoint or the corpus is neither here nor on a hub that can be reached.
        ConfigError: a name in the configuration does not exist in the model or the corpus.
    """
    config = resolve(config)
    device = _prepare(config)
    clocks, memory = Clocks(device, lambda stage: progress(stage, 0, 0)), Memory(device)

    with clocks.stage("load"):
        checkpoint = models.load(config.model, config.seed)
    with clocks.stage("features"):
        corpus = open_corpus(config.dataset)
        speech = _speech(config, corpus, checkpoint)
    with clocks.stage("quantize"):
        model, evidence = _quantize(config, checkpoint.model, device, speech, clocks)
    if not evidence.verified:
        raise NotQuantizedError(evidence)
    decoder = engine(model, device, config)
    with clocks.stage("warm up"):
        _run_through(decoder, speech.measured, config.protocol.warmup_batches)
    memory.reset()
    timed = list(_measure(decoder, speech.measured, progress))
    memory.read()
    utterances = _score(timed, speech.measured, checkpoint, decoder, config)

    marks = fingerprints(config, corpus)
    batches = tuple(item.batch for item in timed)
    record = Record(
        cell_id=cell_id(config, marks),
        status="ok",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config.model_dump(mode="json"),
        fingerprints=marks,
        environment=describe(config, device),
        receipt=evidence,
        stages=clocks.stages(measure_s=sum(batch.elapsed_s for batch in batches)),
        peak_memory_bytes=memory.peak_bytes,
        peak_reserved_bytes=memory.reserved_bytes,
        calibration_ids=speech.calibration_ids if config.quant.scheme == "static" else (),
        problems=speech.measured.problems,
        splits={name: _figures(name, utterances, batches) for name in speech.measured.splits},
    )
    return CellResult(record=record, utterances=utterances, batches=batches)


def _prepare(config: RunConfig) -> torch.device:
    use_threads(config.device.threads or 1)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    return torch.device(config.device.name)


def _speech(config: RunConfig, corpus: Corpus, checkpoint: models.Checkpoint) -> Speech:
    """Features of the corpus, and which utterances calibrate; `disjoint` keeps those out of every cell's score."""
    everything = features(corpus, checkpoint.feature_extractor)
    chosen = calibration_ids(everything, config.calibration, config.seed)
    disjoint = config.calibration.source == "disjoint"
    measured = everything.without(chosen) if disjoint else everything
    return Speech(measured, everything.only(chosen), chosen)


def _quantize(
    config: RunConfig, model: nn.Module, device: torch.device, speech: Speech, clocks: Clocks
) -> tuple[nn.Module, Receipt]:
    """Quantize in place or not, and read the receipt off what came out; calibration is timed apart."""

    def calibrate(half_quantized: nn.Module) -> None:
        with clocks.stage("calibrate"):
            _run_through(engine(half_quantized, device, config), speech.calibration)

    quantizer = quantizers.get(config.quant.library)
    names, skipped = quantizers.select(model, config.quant)
    before = receipt.snapshot(model)
    model = quantizer.setup(model, config.quant, names, device, calibrate)
    return model, receipt.read(before, model, names, skipped, quantizer)


def _run_through(decoder: Engine, speech: Features, most: int | None = None) -> None:
    """Decode untimed, `most` batches or all: warm-up and calibration."""
    batches = (batch for split in speech.splits.values() for batch in split.batches(decoder.batch_size))
    for batch in itertools.islice(batches, most):
        decoder.generate(batch.mel)


def _measure(decoder: Engine, speech: Features, progress: Progress) -> Iterator[Timed]:
    total = sum(len(split.ids) for split in speech.splits.values())
    done = 0
    for name, split in speech.splits.items():
        for index, batch in enumerate(split.batches(decoder.batch_size)):
            progress(name, done, total)
            tokens, seconds = decoder.generate(batch.mel)
            done += len(batch.ids)
            yield Timed(_timing(name, index, batch, tokens, seconds), tokens)
    progress("score", done, total)


def _timing(name: str, index: int, batch: SplitFeatures, tokens: list[list[int]], seconds: float) -> Batch:
    return Batch(
        split=name,
        index=index,
        utterances=len(batch.ids),
        audio_s=float(sum(batch.audio_s)),
        tokens=sum(map(len, tokens)),
        elapsed_s=seconds,
    )


def _score(
    timed: list[Timed], speech: Features, checkpoint: models.Checkpoint, decoder: Engine, config: RunConfig
) -> tuple[Utterance, ...]:
    """Text and counts of every utterance, in the order measured; random weights have no text."""
    tokens = [row for item in timed for row in item.tokens]
    tokenizer = checkpoint.tokenizer if config.model.weights == "pretrained" else None
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True) if tokenizer else [None] * len(tokens)
    return tuple(
        score.utterance(heard, row, text, decoder.max_new_tokens, config.dataset.language)
        for heard, row, text in zip(_heard(speech), tokens, texts, strict=True)
    )


def _heard(speech: Features) -> Iterator[score.Heard]:
    for name, split in speech.splits.items():
        for id, speaker, audio_s, text in zip(split.ids, split.speakers, split.audio_s, split.texts, strict=True):
            yield score.Heard(id=id, split=name, speaker=speaker, audio_s=audio_s, reference=text)


def _figures(name: str, utterances: Iterable[Utterance], batches: Iterable[Batch]) -> SplitResult:
    return split_result(
        [item for item in utterances if item.split == name], [item for item in batches if item.split == name]
    )
