"""Long recordings made by joining utterances of a corpus, with pauses between them.

The error rate of the separate utterances is known, so that any further errors come from cutting into windows and
merging. Nothing is stored; a recording is assembled when it is decoded.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import soundfile

from quantlab.config.schema import DatasetConfig
from quantlab.data.audio import SAMPLE_RATE, Samples, TooLongError, UnreadableAudioError, decode, length_s
from quantlab.data.readers.manifest import read_manifest, read_shipped
from quantlab.data.utterance import Listing, Utterance, with_channel

SHIPPED = "demo"  # corpus to join if no manifest is given
LENGTH_S = (60.0, 120.0)  # range of recording lengths; the last one of a split takes the rest
PAUSE_S = (0.3, 1.2)  # digital silence after each utterance


@dataclass(frozen=True)
class Joined:
    """Utterances, each followed by a pause, as one WAV."""

    parts: tuple[Utterance, ...]
    pauses_s: tuple[float, ...]

    def __call__(self) -> bytes:
        """The recording, float32, mono, 16 kHz.

        Raises:
            UnreadableAudioError: one of its parts cannot be read.
        """
        samples = [
            piece
            for part, pause_s in zip(self.parts, self.pauses_s, strict=True)
            for piece in (_samples(part), np.zeros(round(pause_s * SAMPLE_RATE), np.float32))
        ]
        buffer = io.BytesIO()
        soundfile.write(buffer, np.concatenate(samples), SAMPLE_RATE, format="WAV", subtype="FLOAT")
        return buffer.getvalue()


def read_joined(dataset: DatasetConfig) -> Listing:
    """Recordings of one to two minutes by split, made from the shipped corpus or the manifest `dataset.path`.

    In corpus order and identical on every machine; `dataset.limit` counts recordings.

    Raises:
        ConfigError: see `read_manifest`.
    """
    parts = dataset.model_copy(update={"limit": None, "name": SHIPPED if dataset.path is None else dataset.name})
    listing = read_shipped(parts) if dataset.path is None else read_manifest(parts)
    chosen = {name: [with_channel(dataset, item) for item in split] for name, split in listing.items()}
    return {name: list(_recordings(name, split))[: dataset.limit] for name, split in chosen.items()}


def _recordings(split: str, utterances: Sequence[Utterance]) -> Iterator[Utterance]:
    draw = random.Random(f"joined {split}")
    parts: list[Utterance] = []
    pauses_s: list[float] = []
    number, left_s = 0, draw.uniform(*LENGTH_S)
    for utterance in utterances:
        parts.append(utterance)
        pauses_s.append(draw.uniform(*PAUSE_S))
        left_s -= _length_s(utterance) + pauses_s[-1]
        if left_s <= 0 or utterance is utterances[-1]:
            yield _recording(f"{split}-{number:03d}", split, parts, pauses_s)
            parts, pauses_s = [], []
            number, left_s = number + 1, draw.uniform(*LENGTH_S)


def _recording(id: str, split: str, parts: Sequence[Utterance], pauses_s: Sequence[float]) -> Utterance:
    facts = [
        [part.digest, asdict(part.part), round(pause_s * SAMPLE_RATE)]
        for part, pause_s in zip(parts, pauses_s, strict=True)
    ]
    return Utterance(
        id=id,
        split=split,
        text=" ".join(part.text for part in parts),
        speaker=None,  # several
        audio=Joined(tuple(parts), tuple(pauses_s)),
        digest=hashlib.sha256(str(facts).encode()).hexdigest(),
    )


def _length_s(utterance: Utterance) -> float:
    """Length of the audio; 0 if it cannot be read, which is reported when it is decoded."""
    try:
        return length_s(utterance.audio, utterance.part)
    except UnreadableAudioError:
        return 0.0


def _samples(utterance: Utterance) -> Samples:
    """Samples of one part; any doubt is an error here, since a recording cannot report it for one part."""
    try:
        clip = decode(utterance.audio, utterance.part, None)
    except (UnreadableAudioError, TooLongError) as error:
        raise UnreadableAudioError(f"its part {utterance.id}: {error}") from error
    for doubt in clip.doubts:
        raise UnreadableAudioError(f"its part {utterance.id}: {doubt.kind}: {doubt.detail}")
    return clip.samples
