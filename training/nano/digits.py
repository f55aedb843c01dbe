"""Strings of human-spoken digits, made by joining recordings named `<digit>_<speaker>_<index>.wav`.

The Free Spoken Digit Dataset has this form; by its convention, indices 0 to 4 are the test part.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from training.nano import acoustics
from training.nano.voices import SAMPLE_RATE_HZ, to_16khz
from training.nano.words import DIGITS

TEST_INDICES = range(5)
LONGEST_S = 5.7


@dataclass(frozen=True)
class Recording:
    """One spoken digit, float32 at 16 kHz."""

    digit: int
    speaker: str
    index: int
    samples: np.ndarray


def load(folder: Path) -> list[Recording]:
    """Load all recordings below `folder`, sorted by name.

    Raises:
        FileNotFoundError: if there is none.
    """
    paths = sorted(folder.rglob("[0-9]_*_*.wav"), key=lambda path: path.name)
    if not paths:
        raise FileNotFoundError(f"no <digit>_<speaker>_<index>.wav below {folder}")
    return [_recording(path) for path in paths]


def _recording(path: Path) -> Recording:
    digit, speaker, index = path.stem.split("_")
    samples, rate_hz = soundfile.read(path, dtype="float32")
    return Recording(int(digit), speaker, int(index), to_16khz(samples, rate_hz))


def speakers(recordings: Sequence[Recording]) -> list[str]:
    """The speakers, in alphabetical order."""
    return sorted({recording.speaker for recording in recordings})


def string(recordings: Sequence[Recording], rng: random.Random, longest: int = 7) -> tuple[str, np.ndarray]:
    """Between two and `longest` random digits with pauses, over a faint noise floor: (words, samples)."""
    spoken, pieces = [], [np.zeros(rng.randint(800, 4800), np.float32)]
    for recording in rng.choices(recordings, k=rng.randint(2, longest)):
        if sum(map(len, pieces)) + len(recording.samples) > LONGEST_S * SAMPLE_RATE_HZ:
            break
        pause = np.zeros(rng.randint(0, 3200), np.float32)
        pieces += [acoustics.normalize_peak(recording.samples, rng.uniform(0.35, 0.9)), pause]
        spoken.append(DIGITS[recording.digit])
    samples = np.concatenate(pieces)
    floor = np.random.default_rng(rng.getrandbits(32)).standard_normal(len(samples)) * 10 ** rng.uniform(-4, -3)
    return " ".join(spoken), (samples + floor).astype(np.float32)


def held_back_strings(
    recordings: Sequence[Recording], speaker: str, count: int, seed: int = 0
) -> list[tuple[str, np.ndarray]]:
    """`count` strings of up to six digits from the test part of one speaker's recordings."""
    own = [r for r in recordings if r.speaker == speaker and r.index in TEST_INDICES]
    rng = random.Random(f"{speaker}-{seed}")
    return [string(own, rng, longest=6) for _ in range(count)]
