"""Make the audio in which nothing is said: `python -m training.nano.nonspeech --out DIR`.

Ten clips of each kind (`silence`, `room`, `hum`, `tones`, `clicks`, `music`, `babble`), each kind a split, and the
split `words`: sentences of the demo corpus followed by at least three seconds without speech. FLAC, 16 bits, 16 kHz, no
longer than the 5.9 s that fit the window of the shipped model, and `manifest.jsonl` like the demo's.

Noise and phases come from seeded generators. The last bit of a sample may depend on the machine's sine, so the files
are shipped, and not made when they are needed.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile

from training.nano import acoustics
from training.nano.corpus import prepared, write_lines
from training.nano.voices import SAMPLE_RATE_HZ

DEMO = Path(__file__).parents[2] / "quantlab" / "assets" / "demo"
SHORTEST_S, LONGEST_S = 2.0, 5.9
CLIPS = 10  # of each kind
LEVELS_DB = (-60, -50, -40, -30, -20)  # root mean square below full scale, each used twice
TALKERS = 5
SENTENCES = 16  # followed by silence or by the noise of a room, in turns
SILENCE_S = 3.0  # at least, after a sentence
ROOM_DB = -55
FULL_SCALE = 32767
SEED = 0
Maker = Callable[[int, np.random.Generator], np.ndarray]  # (samples, generator) → (samples,) float, at any level


@dataclass(frozen=True)
class Item:
    """One line of the manifest."""

    audio: str
    text: str
    speaker: str | None
    split: str
    duration_s: float
    level_db: int | None  # root mean square below full scale; null for silence and sentences
    followed_by: str | None  # the sentence: silence or room


def seconds(length: int) -> np.ndarray:
    """Time of each sample."""
    return np.arange(length) / SAMPLE_RATE_HZ


def room(length: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of a ventilated room: pink or brown, swelling slowly."""
    noise = acoustics.colored_noise(("pink", "brown")[int(rng.integers(2))], length, rng)
    return noise * (1 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * seconds(length)))


def hum(length: int, rng: np.random.Generator) -> np.ndarray:
    """Mains hum at 50 or 60 Hz with harmonics that fall off, over a faint noise floor."""
    mains = (50, 60)[int(rng.integers(2))]
    tone = _harmonics(mains, rng.uniform(0.8, 1.6), 12, length, rng)
    return tone / tone.std() + 0.01 * rng.standard_normal(length)


def tones(length: int, rng: np.random.Generator) -> np.ndarray:
    """Beeps of two sines, as of telephones, with pauses; or one sweep."""
    time = seconds(length)
    if rng.random() < 0.3:
        low, high = rng.uniform(100, 400), rng.uniform(1000, 4000)
        return np.sin(2 * np.pi * (low * time + (high - low) * time**2 / (2 * time[-1])))
    period_s, pair = rng.uniform(0.3, 1.5), rng.uniform(350, 1700, size=2)
    gate = (time % period_s) < period_s * rng.uniform(0.3, 0.7)
    return np.sin(2 * np.pi * pair[:, None] * time).sum(axis=0) * gate


def clicks(length: int, rng: np.random.Generator) -> np.ndarray:
    """Decaying bursts of noise of 2 to 30 ms at random times, as of keys, doors and relays."""
    found = np.zeros(length)
    for start in rng.integers(length, size=int(rng.uniform(1, 6) * length / SAMPLE_RATE_HZ) + 1):
        burst = min(round(rng.uniform(0.002, 0.03) * SAMPLE_RATE_HZ), length - int(start))
        decay = np.exp(-5 * np.arange(burst) / burst)
        found[start : start + burst] += rng.uniform(0.3, 1) * rng.standard_normal(burst) * decay
    return found


def music(length: int, rng: np.random.Generator) -> np.ndarray:
    """Plucked triads of the major scale in a steady beat, with a drum on every second one."""
    found, beat = np.zeros(length), round(rng.uniform(0.25, 0.6) * SAMPLE_RATE_HZ)
    root_hz = rng.uniform(110, 220)
    for number, start in enumerate(range(0, length, beat)):
        degree = int(rng.choice((0, 2, 4, 5, 7, 9, 11)))
        left = min(2 * beat, length - start)
        decay = np.exp(-3 * np.arange(left) / beat)
        for step in (0, 4, 7):
            note_hz = root_hz * 2 ** ((degree + step) / 12)
            found[start : start + left] += decay * _harmonics(note_hz, 1.5, 6, left, rng)
        if number % 2:
            drum = min(beat // 3, left)
            found[start : start + drum] += rng.standard_normal(drum) * np.exp(-8 * np.arange(drum) / drum)
    return found


def babble(length: int, rng: np.random.Generator) -> np.ndarray:
    """Five sentences of the demo corpus at once, each played backwards, so that no word is left."""
    spoken = [line for line in _demo() if line["split"] == "clean"]
    chosen = [_samples(spoken[index])[::-1] for index in rng.choice(len(spoken), TALKERS, replace=False)]
    return acoustics.babble(chosen, length, TALKERS, rng)


KINDS: Mapping[str, Maker] = {
    "room": room, "hum": hum, "tones": tones, "clicks": clicks, "music": music, "babble": babble,
}  # fmt: skip


def silence(number: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """(samples,) int16: zeros twice, else a constant of a few steps, or dither of the last bit of growing density.

    All zeros are one input to a model that fills its window with zeros, so more than two of them would show nothing.
    """
    if number < 2:
        return np.zeros(length, np.int16)
    if number < 4:
        return np.full(length, (-3, 5)[number - 2], np.int16)
    density = (0.001, 0.01, 0.05, 0.2, 0.5, 0.9)[number - 4]
    return np.where(rng.random(length) < density, rng.choice((-1, 1), length), 0).astype(np.int16)


def _harmonics(hertz: float, slope: float, count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Sines at multiples of `hertz` below half the sampling rate, with amplitudes 1 / n^slope and random phases."""
    orders = np.arange(1, count + 1)
    orders = orders[orders * hertz < SAMPLE_RATE_HZ / 2]
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    waves = np.sin(2 * np.pi * hertz * orders[:, None] * seconds(length) + phases[:, None])
    return (waves / orders[:, None] ** slope).sum(axis=0)


def at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Scale to a root mean square (lower where the peak would exceed full scale), as int16."""
    scaled = samples * (10 ** (level_db / 20) / np.sqrt(np.mean(samples**2)))
    peak = np.abs(scaled).max()
    return np.rint(scaled / max(1.0, peak) * FULL_SCALE).astype(np.int16)


def _demo() -> list[dict]:
    return [json.loads(line) for line in (DEMO / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def _samples(line: dict) -> np.ndarray:
    return soundfile.read(DEMO / line["audio"], dtype="float32")[0]


def sentences() -> list[dict]:
    """Lines of the demo's manifest that leave room for silence, from as many speakers as possible, in corpus order."""
    short = [line for line in _demo() if line["split"] == "clean" and line["duration_s"] <= LONGEST_S - SILENCE_S]
    seen: dict[str, int] = {}
    turn = {}
    for line in short:
        turn[line["audio"]] = seen[line["speaker"]] = seen.get(line["speaker"], 0) + 1
    return sorted(short, key=lambda line: turn[line["audio"]])[:SENTENCES]


def clips() -> list[tuple[Item, np.ndarray]]:
    """All clips with their lines, int16 (samples,)."""
    found = []
    for index, kind in enumerate(("silence", *KINDS)):
        lengths_s = np.linspace(SHORTEST_S, LONGEST_S, CLIPS)
        for number in range(CLIPS):
            rng = np.random.default_rng([SEED, index, number])
            length = round(lengths_s[number * 3 % CLIPS] * SAMPLE_RATE_HZ)  # so that level and length are independent
            level_db = None if kind == "silence" else LEVELS_DB[number % len(LEVELS_DB)]
            samples = silence(number, length, rng) if level_db is None else at_level(KINDS[kind](length, rng), level_db)
            audio = f"{kind}/{kind}-{number}.flac"
            found.append((Item(audio, "", None, kind, round(length / SAMPLE_RATE_HZ, 3), level_db, None), samples))
    return found + [_followed(number, line) for number, line in enumerate(sentences())]


def _followed(number: int, line: dict) -> tuple[Item, np.ndarray]:
    """A sentence, then silence, or a sentence in the noise of a room that goes on."""
    spoken, length = _samples(line), round(LONGEST_S * SAMPLE_RATE_HZ)
    samples = np.rint(np.pad(spoken, (0, length - len(spoken))) * FULL_SCALE)
    by = ("silence", "room")[number % 2]
    if by == "room":
        samples += at_level(room(length, np.random.default_rng([SEED, 100, number])), ROOM_DB)
    audio = f"words/words-{number:02d}.flac"
    item = Item(audio, line["text"], line["speaker"], "words", LONGEST_S, None, by)
    return item, samples.clip(-FULL_SCALE, FULL_SCALE).astype(np.int16)


def write(out: Path, made: Sequence[tuple[Item, np.ndarray]]) -> None:
    """Write audio and manifest below a folder."""
    for item, samples in made:
        prepared((out / item.audio).parent)
        soundfile.write(out / item.audio, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    write_lines(out / "manifest.jsonl", [asdict(item) for item, _ in made])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m training.nano.nonspeech",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    made = clips()
    write(parser.parse_args().out, made)
    print(f"{len(made)} clips, {sum(item.duration_s for item, _ in made) / 60:.1f} min")


if __name__ == "__main__":
    main()
