"""Calibration data of a cell: which utterances, and how they run through a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from quantlab import models
from quantlab.config.schema import RunConfig
from quantlab.data import Corpus, Features, calibration_ids, chosen_ids, features, open_corpus
from quantlab.data.utterance import Part
from quantlab.engines.clocks import Clocks
from quantlab.engines.eager import eager, family_of, heard_by
from quantlab.models.decoding import Decoding
from quantlab.quantization.base import Pass
from quantlab.quantization.rounding import Block
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError

if TYPE_CHECKING:
    from quantlab.data import SplitFeatures


def chosen(config: RunConfig, corpus: Corpus, evaluated: Features, extractor: Any) -> tuple[Features, tuple[str, ...]]:
    """Features and ids of the calibration utterances.

    Args:
        config: of the cell.
        corpus: which is evaluated.
        evaluated: its features.
        extractor: of features.

    Raises:
        ConfigError: the manifest has no utterance that fits the model's window, or one that is evaluated too.
    """
    dataset = config.calibration_dataset
    if dataset is None:
        ids = calibration_ids(evaluated, config.calibration, config.seed)
        return evaluated.only(ids), ids
    others = open_corpus(dataset)
    _check_apart(others, corpus)
    return _of_manifest(config, others, extractor)


def calibration_alone(config: RunConfig, extractor: Any) -> tuple[Features, str]:
    """Features of the calibration utterances, and the fingerprint of their corpus; nothing is evaluated.

    Raises:
        ConfigError: as `chosen`.
    """
    if (dataset := config.calibration_dataset) is None:
        corpus = open_corpus(config.dataset)
        return chosen(config, corpus, features(corpus, extractor), extractor)[0], corpus.fingerprint
    others = open_corpus(dataset)
    return _of_manifest(config, others, extractor)[0], others.fingerprint


def _of_manifest(config: RunConfig, others: Corpus, extractor: Any) -> tuple[Features, tuple[str, ...]]:
    found = features(others, extractor)
    ids = chosen_ids(found, config.calibration.limit, config.seed)
    if not ids:
        raise ConfigError(
            f"calibration.path={config.calibration.path}: none of its utterances fits the model's window: "
            f"{'; '.join(item.detail for item in found.problems[:1])}"
        )
    return found.only(ids), ids


def _check_apart(calibration: Corpus, evaluated: Corpus) -> None:
    """Refuse audio that both have, by the hashes of its files and the times in them."""
    scored: dict[str, list[Part]] = {}
    for item in (item for split in evaluated.splits.values() for item in split if item.digest):
        scored.setdefault(item.digest, []).append(item.part)
    others = (item for split in calibration.splits.values() for item in split)
    if shared := [item.id for item in others if any(_overlap(item.part, part) for part in scored.get(item.digest, ()))]:
        raise ConfigError(
            f"calibration.path={calibration.dataset.path}: {counted(len(shared), 'utterance')} of it would be scored "
            f"too, e.g. {shared[0]}: leave them out, or set calibration.source=disjoint"
        )


def _overlap(one: Part, other: Part) -> bool:
    return all(
        first.duration_s is None or second.offset_s < first.offset_s + first.duration_s
        for first, second in ((one, other), (other, one))
    )


@dataclass(frozen=True)
class Lesson:
    """Some utterances with the tokens that the decoder is given, padded to one length."""

    inputs: torch.Tensor  # features of the encoder
    tokens: torch.Tensor  # [utterances, longest]: the prompt and the labels
    predicts: torch.Tensor  # [utterances, longest], true where the next token is a label, or the end
    targets: torch.Tensor  # those tokens, in the order of `predicts`


@dataclass(frozen=True)
class CalibrationRuns:
    """The calibration data, as quantizers run them through a model; see `Calibration`."""

    speech: Features
    device: torch.device
    decoding: Decoding
    clocks: Clocks
    labels: Sequence[Sequence[int]]  # token ids of each utterance; empty unless `passes` is called
    _heard: dict[int, Any] = field(default_factory=dict, repr=False)  # utterance → output of the final encoder

    def __call__(self, model: Any) -> None:
        with self.clocks.stage("calibrate"):
            engine = eager(model, self.device, self.decoding)
            for split in self.speech.splits.values():
                for batch in split.batches(self.decoding.batch_size):
                    engine.generate(batch)

    def passes(self, block: Block | None = None) -> Iterator[Pass]:
        """One utterance at a time, as padding of texts would be part of the statistics.

        Once the encoder does not change any more, its output is computed once and kept: 3 MB per utterance for base.
        """
        runs = len(self.labels)
        before, steps = (0, runs) if block is None else (block.number * runs, block.of * runs)
        for number, (utterance, label) in enumerate(zip(_one_by_one(self.speech), self.labels, strict=True)):
            with self.clocks.stage("calibrate"):
                self.clocks.progress("calibrate", before + number, steps)
                heard = self._heard if block is not None and block.follows_encoder else None
                yield partial(self._teach, utterance, label, heard, number)

    def lessons(self, batch_size: int) -> Iterator[Lesson]:
        """The same data for other uses than a pass; padding follows what it could change."""
        labels = iter(self.labels)
        for split in self.speech.splits.values():
            for batch in split.batches(batch_size):
                yield self._lesson(batch, [next(labels) for _ in batch.ids])

    def _lesson(self, batch: SplitFeatures, labels: Sequence[Sequence[int]]) -> Lesson:
        prompt, end = self.decoding.prompt, self.decoding.end
        longest = len(prompt) + max(map(len, labels))
        tokens = torch.full((len(labels), longest), end, device=self.device)
        predicts = torch.zeros_like(tokens, dtype=torch.bool)
        for row, label in enumerate(labels):
            tokens[row, : len(prompt) + len(label)] = torch.tensor([*prompt, *label])
            predicts[row, len(prompt) - 1 : len(prompt) + len(label)] = True
        targets = torch.tensor([token for label in labels for token in (*label, end)], device=self.device)
        return Lesson(torch.from_numpy(np.array(batch.mel)).to(self.device), tokens, predicts, targets)

    def _teach(
        self, utterance: SplitFeatures, label: Sequence[int], heard: dict[int, Any] | None, number: int, model: Any
    ) -> object:
        if family_of(model) == "ctc":
            return model(heard_by(model, self.device, utterance))
        encoded = None if heard is None else heard.get(number)
        if encoded is None:
            encoded = model.get_encoder()(heard_by(model, self.device, utterance))
        if heard is not None:
            heard[number] = encoded
        tokens = torch.tensor([[*self.decoding.prompt, *label]], device=self.device)
        return model(encoder_outputs=encoded, decoder_input_ids=tokens, use_cache=False)


def calibration_runs(
    config: RunConfig,
    checkpoint: models.Checkpoint,
    speech: Features,
    device: torch.device,
    how: Decoding,
    clocks: Clocks,
) -> CalibrationRuns:
    """Prepare the calibration data of a model that is not quantized yet.

    Raises:
        ConfigError: `calibration.labels=reference`, and an utterance has no reference or the model no tokenizer.
    """
    how = replace(how, long_form=None, num_beams=1)
    labels: list[list[int]] = []
    if config.quant.reads_labels:
        with clocks.stage("calibrate"):
            labels = (
                _references(checkpoint, speech)
                if config.calibration.labels == "reference"
                else _heard(checkpoint.model.to(device), device, how, speech)
            )
    return CalibrationRuns(speech, device, how, clocks, labels)


def _heard(model: Any, device: torch.device, how: Decoding, speech: Features) -> list[list[int]]:
    engine = eager(model, device, how)
    return [row for split in speech.splits.values() for batch in split.batches(how.batch_size)
            for row in engine.generate(batch)[0]]  # fmt: skip


def _references(checkpoint: models.Checkpoint, speech: Features) -> list[list[int]]:
    if checkpoint.tokenizer is None:
        raise ConfigError("calibration.labels=reference: random weights have no tokenizer; set calibration.labels=self")
    # byte-level BPE has a space before the first word too
    lead = " " if "Ġ" in checkpoint.tokenizer.get_vocab() else ""
    found = []
    for utterance in _one_by_one(speech):
        [text], [id] = utterance.texts, utterance.ids
        if not text.strip():
            raise ConfigError(
                f"calibration.labels=reference: utterance {id} has no text: leave it out, or set "
                "calibration.labels=self"
            )
        found.append(checkpoint.tokenizer(f"{lead}{text.strip()}", add_special_tokens=False).input_ids)
    return found


def _one_by_one(speech: Features) -> Iterator[SplitFeatures]:
    for split in speech.splits.values():
        yield from split.batches(1)
