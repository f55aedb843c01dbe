"""Training speech in memory-mapped shards, and the order of its batches."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperProcessor

from training.nano import acoustics, digits, features
from training.nano.augment import Batch
from training.nano.model import CHARACTERS, CTC_BLANK
from training.nano.tokenizer import text_ids

DIGIT_STRINGS_PER_SPEAKER = 600
DIGIT_SHARE = 0.10  # digit strings / synthetic utterances in every epoch
SHORT_FRAMES = 220
NOISE_BANK_S = 40
BABBLE_TALKERS = (2, 4, 6, 8)
_CHARACTER_IDS = {character: i for i, character in enumerate(CHARACTERS)}
assert CTC_BLANK not in _CHARACTER_IDS.values()


@dataclass(frozen=True)
class Utterance:
    """Location of an utterance's features, and its transcript as tokens and characters."""

    shard: int
    start: int
    frames: int
    tokens: tuple[int, ...]
    characters: tuple[int, ...]
    human: bool


@dataclass
class Speech:
    """All training utterances; `dry[shard]` and `wet[shard]` (reverberated) are float16 (frames, 80)."""

    utterances: list[Utterance] = field(default_factory=list)
    dry: list[np.ndarray] = field(default_factory=list)
    wet: list[np.ndarray] = field(default_factory=list)

    def batch(self, indices: Sequence[int], in_room: Sequence[bool]) -> Batch:
        """The utterances as a batch, padded with silence."""
        chosen = [self.utterances[i] for i in indices]
        lengths = torch.tensor([u.frames for u in chosen])
        log_power = torch.full((len(chosen), int(lengths.max()), features.MEL_BINS), np.log10(features.POWER_FLOOR))
        for row, (utterance, wet) in enumerate(zip(chosen, in_room, strict=True)):
            shard = (self.wet if wet else self.dry)[utterance.shard]
            frames = shard[utterance.start : utterance.start + utterance.frames]
            log_power[row, : utterance.frames] = torch.from_numpy(frames.astype(np.float32))
        return Batch(log_power, lengths)


def read_shards(folder: Path, processor: WhisperProcessor) -> Speech:
    """Read the shards that `corpus` wrote.

    Raises:
        FileNotFoundError: if `folder` has none.
    """
    speech = Speech()
    for listing in sorted(folder.glob("*.jsonl")):
        shard = len(speech.dry)
        speech.dry.append(np.load(listing.with_suffix(".npy"), mmap_mode="r"))
        speech.wet.append(np.load(listing.with_suffix(".reverb.npy"), mmap_mode="r"))
        for row in map(json.loads, listing.read_text().splitlines()):
            speech.utterances.append(
                _utterance(row["text"], shard, row["start"], row["frames"], processor, human=False)
            )
    if not speech.utterances:
        raise FileNotFoundError(f"no shards in {folder}; make them with python -m training.nano.corpus --out {folder}")
    return speech


def _utterance(
    text: str, shard: int, start: int, frames: int, processor: WhisperProcessor, *, human: bool
) -> Utterance:
    return Utterance(shard, start, frames, tuple(text_ids(processor, text)), character_ids(text), human)


def character_ids(text: str) -> tuple[int, ...]:
    """The places of a transcript's characters in `CHARACTERS`."""
    return tuple(_CHARACTER_IDS[character] for character in text)


def add_digits(speech: Speech, recordings: Sequence[digits.Recording], processor: WhisperProcessor, seed: int) -> None:
    """Append strings of human-spoken digits to `speech`, in place, without the recordings' test part."""
    rng, room_rng = random.Random(f"digits-{seed}"), np.random.default_rng(seed)
    dry, wet, start = [], [], 0
    for speaker in digits.speakers(recordings):
        own = [r for r in recordings if r.speaker == speaker and r.index not in digits.TEST_INDICES]
        for _ in range(DIGIT_STRINGS_PER_SPEAKER):
            text, samples = digits.string(own, rng)
            response = acoustics.room_response(rng.uniform(0.15, 0.6), rng.uniform(0, 10), room_rng)
            dry.append(features.log_power(samples))
            wet.append(features.log_power(acoustics.reverberate(samples, response)))
            speech.utterances.append(_utterance(text, len(speech.dry), start, len(dry[-1]), processor, human=True))
            start += len(dry[-1])
    speech.dry.append(np.concatenate(dry))
    speech.wet.append(np.concatenate(wet))


def noise_bank(speech: Speech, seed: int) -> Tensor:
    """float32 (kinds, frames, 80), log10 power: white, pink, brown, and babble of several numbers of talkers.

    Babble adds the powers of random training utterances, which is what their sum has on average.
    """
    rng = np.random.default_rng(seed)
    length = NOISE_BANK_S * features.MAX_FRAMES * features.HOP_SAMPLES // features.WINDOW_S
    kinds = [features.log_power(acoustics.colored_noise(color, length, rng)) for color in ("white", "pink", "brown")]
    kinds += [_babble_power(speech, len(kinds[0]), talkers, rng) for talkers in BABBLE_TALKERS]
    return torch.from_numpy(np.stack([kind.astype(np.float32) for kind in kinds]))


def _babble_power(speech: Speech, frames: int, talkers: int, rng: np.random.Generator) -> np.ndarray:
    total = np.full((frames, features.MEL_BINS), features.POWER_FLOOR)
    synthetic = [u for u in speech.utterances if not u.human]
    for _ in range(talkers):
        position = 0
        while position < frames:
            utterance = synthetic[rng.integers(len(synthetic))]
            end = min(frames, position + utterance.frames)
            log_power = speech.dry[utterance.shard][utterance.start : utterance.start + end - position]
            power = 10 ** log_power.astype(np.float32)
            total[position:end] += power / power.mean()
            position = end
    return np.log10(total)


class Timed(Protocol):
    """What the order of an epoch depends on."""

    @property
    def frames(self) -> int: ...
    @property
    def human(self) -> bool: ...


def epoch_plan(
    utterances: Sequence[Timed], epoch: int, seed: int, batch_frames: int, *, short_only: bool
) -> list[list[int]]:
    """The batches of one epoch, in order: utterances of similar length together, at most `batch_frames` padded frames.

    Every synthetic utterance once, and a random selection of the digit strings.
    """
    rng = random.Random(f"epoch-{seed}-{epoch}")
    fitting = [i for i, u in enumerate(utterances) if not short_only or u.frames < SHORT_FRAMES]
    chosen = [i for i in fitting if not utterances[i].human]
    human = [i for i in fitting if utterances[i].human]
    chosen += rng.sample(human, min(len(human), round(DIGIT_SHARE * len(chosen))))
    chosen.sort(key=lambda i: utterances[i].frames + rng.uniform(-25, 25))
    batches: list[list[int]] = [[]]
    longest = 0
    for index in chosen:
        longest = max(longest, utterances[index].frames)
        if batches[-1] and longest * (len(batches[-1]) + 1) > batch_frames:
            batches.append([])
            longest = utterances[index].frames
        batches[-1].append(index)
    rng.shuffle(batches)
    return batches
