"""Make the training speech as waveforms: `python -m training.waveform.corpus --out DIR`.

The utterances of `training.nano.corpus --split train` with the same seed, dry, in shards: `<shard>.npy` int16
(samples,) at 16 kHz, and `<shard>.jsonl` with text, speaker, start, samples.

Example: python -m training.waveform.corpus --out data/waveforms --workers 2
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from training.nano import text
from training.nano.corpus import (
    SHARD_UTTERANCES,
    TRAINING_SEED,
    TRAINING_UTTERANCES,
    prepared,
    shard_name,
    training_speech,
    write_lines,
)

FULL_SCALE = 32767


def make(out: Path, utterances: int, seed: int, workers: int) -> None:
    """Write the missing shards, each atomically."""
    prepared(out)
    sentences = text.sentences("train", utterances, seed)
    starts = range(0, utterances, SHARD_UTTERANCES)
    jobs = [(out, index, sentences[start : start + SHARD_UTTERANCES], seed) for index, start in enumerate(starts)]
    with ProcessPoolExecutor(workers) as pool:
        for shard, kept in pool.map(make_shard, *zip(*jobs, strict=True)):
            print(f"{shard}: {kept} utterances", flush=True)


def make_shard(out: Path, index: int, sentences: Sequence[str], seed: int) -> tuple[str, int]:
    """Write one shard unless it is there; returns its name and the number of utterances written."""
    name = shard_name(index)
    if (out / f"{name}.jsonl").exists():
        return name, 0
    pieces, lines, start = [], [], 0
    for spoken in training_speech(index, sentences, seed):
        pieces.append(np.round(spoken.samples * FULL_SCALE).astype(np.int16))
        lines.append({"text": spoken.text, "speaker": spoken.speaker, "start": start, "samples": len(pieces[-1])})
        start += len(pieces[-1])
    np.save(out / f"{name}.npy", np.concatenate(pieces))
    write_lines(out / f"{name}.jsonl", lines)  # last: its presence says that the shard is complete
    return name, len(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m training.waveform.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=TRAINING_SEED)
    parser.add_argument("--utterances", type=int, default=TRAINING_UTTERANCES)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    args = parser.parse_args()
    make(args.out, args.utterances, args.seed, args.workers)


if __name__ == "__main__":
    main()
