"""The two models by name, made anew or read from a folder."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import MoonshineForConditionalGeneration, PreTrainedModel, Wav2Vec2ForCTC, Wav2Vec2Processor

from training.nano import text
from training.nano.checkpoint import HEADS_FILE
from training.nano.corpus import TRAINING_SEED, TRAINING_UTTERANCES
from training.waveform import ctc, moonshine
from training.waveform.data import Batch
from training.waveform.encoded import Encoded
from training.waveform.teacher import Teacher


class Recogniser(Protocol):
    """What the training needs of a model; see `ctc.Ctc`."""

    model: PreTrainedModel
    processor: Wav2Vec2Processor
    centre: float
    stride: float

    @property
    def heads(self) -> nn.Module: ...
    def front(self, batch: Batch) -> Tensor: ...
    def encode(self, batch: Batch) -> Encoded: ...
    def losses(self, encoded: Encoded, texts: Sequence[str]) -> dict[str, Tensor]: ...
    def total(self, values: dict[str, Tensor], progress: float, step: int) -> Tensor: ...
    def layer_matrices(self) -> list[nn.Parameter]: ...
    def start_from(self, teacher: Teacher) -> None: ...
    def transcribe(self, samples: np.ndarray) -> str: ...


def _new_ctc(folder: Path) -> Recogniser:
    processor = _kept(folder, ctc.build_processor)
    return ctc.Ctc(ctc.build(processor), processor)


def _new_moonshine(folder: Path) -> Recogniser:
    processor = _kept(folder, lambda: moonshine.train_processor(training_sentences()))
    return moonshine.Moonshine(moonshine.build(processor), processor)


def _kept(folder: Path, make: Callable[[], Wav2Vec2Processor]) -> Wav2Vec2Processor:
    """The processor in `folder`, made and saved if there is none."""
    if not folder.exists():
        make().save_pretrained(folder)
    return Wav2Vec2Processor.from_pretrained(folder)


def training_sentences() -> list[str]:
    """The text of all training shards, whether these are there yet or not."""
    return text.sentences("train", TRAINING_UTTERANCES, TRAINING_SEED)


# A model with fresh weights; its processor is kept in the folder given.
NEW: dict[str, Callable[[Path], Recogniser]] = {"ctc": _new_ctc, "moonshine": _new_moonshine}


def read(folder: Path) -> Recogniser:
    """A model from its folder, with its training heads if they are there."""
    processor = Wav2Vec2Processor.from_pretrained(folder)
    recogniser: Recogniser
    if json.loads((folder / "config.json").read_text())["model_type"] == "moonshine":
        recogniser = moonshine.Moonshine(MoonshineForConditionalGeneration.from_pretrained(folder).eval(), processor)
    else:
        recogniser = ctc.Ctc(Wav2Vec2ForCTC.from_pretrained(folder).eval(), processor)
    if (folder / HEADS_FILE).exists():
        recogniser.heads.load_state_dict(load_file(folder / HEADS_FILE))
    return recogniser


def transcribe(recogniser: Recogniser, audio: Sequence[np.ndarray]) -> list[str]:
    """Transcripts of float32 16 kHz utterances, one by one: in a batch padding would be heard, or read, too."""
    return [recogniser.transcribe(samples) for samples in audio]


def write(recogniser: Recogniser, folder: Path) -> None:
    """Write a folder for `from_pretrained`, and the heads that only further training needs."""
    recogniser.model.save_pretrained(folder)
    recogniser.processor.save_pretrained(folder)
    if heads := recogniser.heads.state_dict():
        save_file(heads, folder / HEADS_FILE)
    for path in folder.iterdir():
        path.chmod(0o644)
