"""Training speech as waveforms in memory-mapped shards, and banks of rooms and noises to put it into."""

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from training.nano import acoustics, digits
from training.nano.augment import Dice
from training.nano.corpus import shard_name
from training.nano.data import BABBLE_TALKERS, DIGIT_STRINGS_PER_SPEAKER, NOISE_BANK_S
from training.nano.features import HOP_SAMPLES, WINDOW_S
from training.nano.voices import SAMPLE_RATE_HZ
from training.waveform.corpus import FULL_SCALE

MAX_SAMPLES = WINDOW_S * SAMPLE_RATE_HZ
ROOMS, LONGEST_DECAY_S = 256, 0.6
FACTORS = (0.86, 1.16)  # tempo and pitch together, as from a smaller speaker in more haste
LONGEST_LEAD_S = 0.25  # silence before and after the speech


@dataclass(frozen=True)
class Utterance:
    """Location of an utterance, and its transcript. `frames` are those of log-mel, 100 a second, for `epoch_plan`."""

    shard: int
    start: int
    samples: int
    text: str
    human: bool

    @property
    def frames(self) -> int:
        return self.samples // HOP_SAMPLES


@dataclass(frozen=True)
class Batch:
    """`samples`: float32 (batch, samples) in [-1, 1], zero after each end; `lengths`: int64 (batch,), in samples."""

    samples: Tensor
    lengths: Tensor
    texts: list[str]


@dataclass
class Speech:
    """All training utterances; `shards[i]` is int16 (samples,) at 16 kHz."""

    utterances: list[Utterance] = field(default_factory=list)
    shards: list[np.ndarray] = field(default_factory=list)

    def samples(self, utterance: Utterance) -> np.ndarray:
        """float32 (samples,)."""
        shard = self.shards[utterance.shard]
        return shard[utterance.start : utterance.start + utterance.samples].astype(np.float32) / FULL_SCALE

    def batch(self, indices: Sequence[int], dice: Dice, strength: float) -> Batch:
        """The utterances, some at another speed, each after and before a little silence; at most 6 s."""
        chosen = [self.utterances[i] for i in indices]
        changed = dice.uniform(0, 1, len(chosen)) < 0.8 * strength
        factors = torch.where(changed, dice.uniform(*FACTORS, len(chosen)), torch.ones(len(chosen)))
        leads = (dice.uniform(0, LONGEST_LEAD_S, len(chosen), 2) * SAMPLE_RATE_HZ).long().tolist()
        pieces = [
            np.pad(_faster(self.samples(u), factor), lead)[:MAX_SAMPLES]
            for u, factor, lead in zip(chosen, factors.tolist(), leads, strict=True)
        ]
        lengths = torch.tensor([len(piece) for piece in pieces])
        samples = torch.zeros(len(pieces), int(lengths.max()))
        for row, piece in enumerate(pieces):
            samples[row, : len(piece)] = torch.from_numpy(piece)
        return Batch(samples, lengths, [u.text for u in chosen])


def _faster(samples: np.ndarray, factor: float) -> np.ndarray:
    if factor == 1 or len(samples) > MAX_SAMPLES * factor:  # would be cut at the end
        return samples
    return soxr.resample(samples, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="LQ")


def read_shards(folder: Path, count: int | None = None) -> Speech:
    """Read the first `count` shards that `corpus` wrote, by default all before the first that is missing.

    Raises:
        FileNotFoundError: if `folder` has none.
    """
    speech = Speech()
    listings = (folder / f"{shard_name(index)}.jsonl" for index in itertools.count())
    for listing in itertools.islice(itertools.takewhile(Path.exists, listings), count):
        shard = len(speech.shards)
        speech.shards.append(np.load(listing.with_suffix(".npy"), mmap_mode="r"))
        for row in map(json.loads, listing.read_text().splitlines()):
            speech.utterances.append(Utterance(shard, row["start"], row["samples"], row["text"], human=False))
    if not speech.utterances:
        raise FileNotFoundError(
            f"no shards in {folder}; make them with python -m training.waveform.corpus --out {folder}"
        )
    return speech


def add_digits(speech: Speech, recordings: Sequence[digits.Recording], seed: int) -> None:
    """Append strings of human-spoken digits to `speech`, in place, without the recordings' test part."""
    rng, pieces, start = random.Random(f"digits-{seed}"), [], 0
    for speaker in digits.speakers(recordings):
        own = [r for r in recordings if r.speaker == speaker and r.index not in digits.TEST_INDICES]
        for _ in range(DIGIT_STRINGS_PER_SPEAKER):
            text, samples = digits.string(own, rng)
            pieces.append(np.round(samples.clip(-1, 1) * FULL_SCALE).astype(np.int16))
            speech.utterances.append(Utterance(len(speech.shards), start, len(samples), text, human=True))
            start += len(samples)
    speech.shards.append(np.concatenate(pieces))


@dataclass(frozen=True)
class Surroundings:
    """`rooms`: float32 (rooms, samples), impulse responses; `noises`: float32 (kinds, samples), of unit power."""

    rooms: Tensor
    noises: Tensor


def surroundings(speech: Speech, seed: int) -> Surroundings:
    """Synthetic rooms; white, pink and brown noise, and babble of several numbers of training utterances at once."""
    rng, dice = np.random.default_rng(seed), random.Random(f"rooms-{seed}")
    rooms = np.zeros((ROOMS, round(LONGEST_DECAY_S * SAMPLE_RATE_HZ)), np.float32)
    for room in rooms:
        response = acoustics.room_response(dice.uniform(0.15, LONGEST_DECAY_S), dice.uniform(0, 10), rng)
        room[: len(response)] = response[: len(room)]
    length = NOISE_BANK_S * SAMPLE_RATE_HZ
    noises = [acoustics.colored_noise(color, length, rng) for color in ("white", "pink", "brown")]
    noises += [_babble(speech, length, talkers, rng) for talkers in BABBLE_TALKERS]
    return Surroundings(torch.from_numpy(rooms), torch.from_numpy(np.stack(noises)))


def _babble(speech: Speech, length: int, talkers: int, rng: np.random.Generator) -> np.ndarray:
    total = np.zeros(length, np.float32)
    synthetic = [u for u in speech.utterances if u.shard == 0]  # is there from the start, whatever comes later
    for _ in range(talkers):
        position = 0
        while position < length:
            samples = speech.samples(synthetic[rng.integers(len(synthetic))])[: length - position]
            total[position : position + len(samples)] += samples / (samples.std() + 1e-6)
            position += len(samples)
    return total / total.std()
