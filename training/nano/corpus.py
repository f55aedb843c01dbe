"""Make the speech: `python -m training.nano.corpus --out DIR [--split train|dev|demo] [--seed N]`.

train  shards of log-mel features, each utterance dry and in a room:
       `<shard>.npy` float16 (frames, 80), `<shard>.reverb.npy` likewise, and `<shard>.jsonl` with text, speaker,
       start, frames
dev    a folder of audio and a manifest like the demo's, for choosing checkpoints
demo   what quantlab ships: the splits `clean` and `other`

Example: python -m training.nano.corpus --out data/train --split train --utterances 30000 --workers 2
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch

from training.nano import acoustics, features, roster, spoken, text, voices
from training.nano.voices import SAMPLE_RATE_HZ

SHARD_UTTERANCES = 500
MIN_S, MAX_S = 0.6, 5.6  # length of a training utterance
MIN_TEST_S, MAX_TEST_S = 1.5, 5.5
WARPS = (0.85, 0.9, 0.95, 1.0, 1.0, 1.0, 1.05, 1.1, 1.15, 1.22)
TRAINING_SEED = 0  # seed of the shipped model, none of whose training sentences may contain a test sentence
TRAINING_UTTERANCES = 40_000
SNRS_DB = (0, 5, 10, 15)
TEST_PEAK = 0.8
BABBLE_TALKERS = 5


@dataclass(frozen=True)
class Item:
    """One line of a manifest. `snr_db` is null without noise, `reverb` the decay time (RT60) in seconds or null."""

    audio: str
    text: str
    speaker: str
    split: str
    duration_s: float
    seen_voice: bool
    noise: str | None
    snr_db: int | None
    reverb: float | None
    words: list[spoken.Timed] = field(default_factory=list)  # null times: its synthesiser does not say


@dataclass(frozen=True)
class Spoken:
    """A training utterance: float32 samples at 16 kHz, and the room that it may be put into (see `room_response`)."""

    text: str
    speaker: str
    samples: np.ndarray
    decay_s: float
    direct_to_reverberant_db: float


def make_train(out: Path, utterances: int, seed: int, workers: int) -> None:
    """Write the missing training shards, each atomically."""
    prepared(out)
    sentences = text.sentences("train", utterances, seed)
    starts = range(0, utterances, SHARD_UTTERANCES)
    jobs = [(out, index, sentences[start : start + SHARD_UTTERANCES], seed) for index, start in enumerate(starts)]
    with ProcessPoolExecutor(workers) as pool:
        for shard, kept in pool.map(_make_shard, *zip(*jobs, strict=True)):
            print(f"{shard}: {kept} utterances", flush=True)


def prepared(folder: Path) -> Path:
    """The folder, created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _make_shard(out: Path, index: int, sentences: Sequence[str], seed: int) -> tuple[str, int]:
    torch.set_num_threads(1)
    name = shard_name(index)
    if (out / f"{name}.jsonl").exists():
        return name, 0
    noise_rng = np.random.default_rng([seed, index])
    dry, wet, lines, start = [], [], [], 0
    for one in training_speech(index, sentences, seed):
        response = acoustics.room_response(one.decay_s, one.direct_to_reverberant_db, noise_rng)
        dry.append(features.log_power(one.samples))
        wet.append(features.log_power(acoustics.reverberate(one.samples, response)))
        lines.append({"text": one.text, "speaker": one.speaker, "start": start, "frames": len(dry[-1])})
        start += len(dry[-1])
    np.save(out / f"{name}.npy", np.concatenate(dry))
    np.save(out / f"{name}.reverb.npy", np.concatenate(wet))
    write_lines(out / f"{name}.jsonl", lines)  # last: its presence says that the shard is complete
    return name, len(lines)


def shard_name(index: int) -> str:
    """Name of a training shard's files, without suffix."""
    return f"train-{index:03d}"


def training_speech(index: int, sentences: Sequence[str], seed: int) -> Iterator[Spoken]:
    """The dry speech of shard `index`, the same for the same arguments, without utterances of unsuitable length."""
    rng = random.Random(f"{seed}-{shard_name(index)}")
    requests = [voices.random_request(sentence, roster.training_voice(rng), rng) for sentence in sentences]
    for request, speech in zip(requests, voices.synthesize(requests), strict=True):
        samples = _presentable(speech, rng.choice(WARPS), MIN_S, MAX_S)
        if samples is not None:
            samples = acoustics.normalize_peak(samples, rng.uniform(0.3, 0.95))
            yield Spoken(request.text, request.voice.speaker, samples, rng.uniform(0.15, 0.6), rng.uniform(0, 10))


def _presentable(samples: np.ndarray | None, factor: float, min_s: float, max_s: float) -> np.ndarray | None:
    """Trimmed and warped speech; None if there is none of a suitable length."""
    if samples is None or not np.abs(samples).max(initial=0.0) > 0:
        return None
    samples = acoustics.trim(acoustics.warp(samples, factor))
    return samples if min_s <= len(samples) / SAMPLE_RATE_HZ <= max_s else None


def write_lines(path: Path, rows: Sequence[dict]) -> None:
    """Write JSON lines through a temporary file."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
    partial.replace(path)


def make_split(out: Path, split: str, voice_split: str, utterances: int, seed: int, noisy: bool) -> list[Item]:
    """Write `utterances` Opus files below `out`/`split` and return their manifest lines.

    `voice_split` selects sentences, and speakers of `roster`, which alternate. Noisy utterances get noise,
    reverberation, or both (a quarter each for the last two); the others get an inaudible noise floor.
    """
    prepared(out / split)
    rng, noise_rng = random.Random(f"{split}-{seed}"), np.random.default_rng([seed, len(split), noisy])
    sentences = _spoken_sentences(voice_split, utterances, seed, rng)
    crowd = [one.samples for _, one in sentences]
    items = []
    for number, (request, one) in enumerate(sentences):
        samples = one.samples
        noise, snr_db, decay_s = _condition(rng) if noisy else (None, None, None)
        if decay_s is not None:
            response = acoustics.room_response(decay_s, rng.uniform(0, 6), noise_rng)
            samples = acoustics.reverberate(samples, response)
        if noise is not None and snr_db is not None:
            samples = acoustics.add_noise(samples, _noise(noise, len(samples), crowd, noise_rng), snr_db)
        floor = noise_rng.standard_normal(len(samples)) * 10 ** rng.uniform(-4, -3.2)
        samples = acoustics.normalize_peak(samples + floor.astype(np.float32), TEST_PEAK)
        audio = f"{split}/{split}-{number:04d}.ogg"
        soundfile.write(out / audio, samples, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
        duration_s = soundfile.info(out / audio).duration
        items.append(
            Item(
                audio,
                request.text,
                request.voice.speaker,
                split,
                round(duration_s, 3),
                roster.is_seen(request.voice),
                noise,
                snr_db,
                decay_s,
                list(one.words),
            )
        )
    return items


def _spoken_sentences(
    split: str, count: int, seed: int, rng: random.Random
) -> list[tuple[voices.Request, spoken.Spoken]]:
    """Sentences that no training sentence contains, spoken by the alternating speakers of `split`."""
    training = "\n".join(text.sentences("train", TRAINING_UTTERANCES, TRAINING_SEED))
    candidates = [s for s in text.sentences(split, 2 * count, seed) if s not in training and not _only_digits(s)]
    speakers = roster.split_voices(split)
    requests = [
        voices.Request(sentence, speakers[i % len(speakers)], rate=rng.uniform(0.9, 1.1), pitch=rng.uniform(0.92, 1.08))
        for i, sentence in enumerate(candidates)
    ]
    found: list[tuple[voices.Request, spoken.Spoken]] = []
    for request, one in zip(requests, spoken.with_words(requests), strict=True):
        trimmed = None if one is None else _presentable(one.samples, 1.0, MIN_TEST_S, MAX_TEST_S)
        if one is not None and trimmed is not None and len(found) < count:
            cut_s = acoustics.trimmed(one.samples).start / SAMPLE_RATE_HZ
            words = tuple(_moved(word, cut_s, len(trimmed) / SAMPLE_RATE_HZ) for word in one.words)
            found.append((request, spoken.Spoken(acoustics.normalize_peak(trimmed, TEST_PEAK), words)))
    return found


def _moved(item: spoken.Timed, cut_s: float, length_s: float) -> spoken.Timed:
    """A word's times after `cut_s` were cut off the beginning, to the millisecond.

    Rooms and noise change none: the direct path of `acoustics.room_response` has no delay.
    """
    if item.start_s is None or item.end_s is None:
        return item
    start_s, end_s = (round(min(max(0.0, time_s - cut_s), length_s), 3) for time_s in (item.start_s, item.end_s))
    return spoken.Timed(item.word, start_s, end_s)


def _only_digits(sentence: str) -> bool:
    return set(sentence.split()) <= set(text.words.DIGITS)


def _condition(rng: random.Random) -> tuple[str | None, int | None, float | None]:
    """(noise, snr_db, decay_s) of one noisy utterance."""
    kind = rng.choice(("noise", "noise", "reverb", "both"))
    decay_s = None if kind == "noise" else round(rng.uniform(0.2, 0.5), 2)
    if kind == "reverb":
        return None, None, decay_s
    return rng.choice(("white", "pink", "babble")), rng.choice(SNRS_DB), decay_s


def _noise(kind: str, length: int, crowd: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    if kind == "babble":
        return acoustics.babble(crowd, length, BABBLE_TALKERS, rng)
    return acoustics.colored_noise(kind, length, rng)


def make_manifest(out: Path, items: Sequence[Item]) -> None:
    """`manifest.jsonl` beside the split folders."""
    write_lines(out / "manifest.jsonl", [asdict(item) for item in items])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.nano.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--split", choices=("train", "dev", "demo"), default="train")
    parser.add_argument("--seed", type=int, default=TRAINING_SEED)
    parser.add_argument("--utterances", type=int, help=f"train: {TRAINING_UTTERANCES}; dev and demo: 200 of each kind")
    parser.add_argument("--workers", type=int, default=2, help="processes, for train only")
    return parser


def main() -> None:
    """Entry point."""
    args = _parser().parse_args()
    if args.split == "train":
        make_train(args.out, args.utterances or TRAINING_UTTERANCES, args.seed, args.workers)
        return
    count = args.utterances or 200
    plan = {"demo": (("clean", "clean"), ("other", "other")), "dev": (("dev_clean", "dev"), ("dev_other", "dev"))}
    items = [
        item
        for split, voice_split in plan[args.split]
        for item in make_split(
            args.out, split, voice_split, count, args.seed + split.endswith("other"), "other" in split
        )
    ]
    make_manifest(args.out, items)
    print(f"{len(items)} utterances, {sum(item.duration_s for item in items) / 60:.1f} min")


if __name__ == "__main__":
    main()
