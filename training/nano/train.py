"""Train the model: `python -m training.nano.train --data DIR --out DIR --utterances N [--digits DIR] [--dev DIR]`.

On a CPU two single-threaded processes in bfloat16 autocast were fastest (`--processes 2`); on a GPU take one
(`--device cuda --processes 1 --batch-frames 18000`). A run of `--utterances N` is determined by its data, seed and
number of processes; one of `--minutes M` depends on the clock. The state is saved periodically, and `--resume`
continues from it with the same result as an uninterrupted run.

Example: python -m training.nano.train --data data/train --dev data/dev --out runs/nano --utterances 500000 --seed 0
"""

import argparse
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist

from training.nano.options import Options, add_watching
from training.nano.tokenizer import train_processor
from training.nano.trainer import Trainer

GPU_THREADS = 4


def _work(rank: int, options: Options) -> None:
    torch.set_num_threads(1 if options.device == "cpu" else GPU_THREADS)
    torch.set_flush_denormal(True)
    if options.processes == 1:
        Trainer(options, rank).run()
        return
    dist.init_process_group("gloo", rank=rank, world_size=options.processes)
    try:
        Trainer(options, rank).run()
    finally:
        dist.destroy_process_group()


def train(options: Options) -> None:
    """Run to the end; the result is in `options.out`/export.

    Raises:
        FileNotFoundError: without training shards.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.init and not (options.out / "processor").exists():
        train_processor(_training_text(options.data)).save_pretrained(options.out / "processor")
    if options.processes == 1:
        _work(0, options)
        return
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    torch.multiprocessing.spawn(_work, (options,), nprocs=options.processes)


def _training_text(folder: Path) -> list[str]:
    listings = sorted(folder.glob("*.jsonl"))
    if not listings:
        raise FileNotFoundError(f"no shards in {folder}; make them with python -m training.nano.corpus --out {folder}")
    return [json.loads(line)["text"] for listing in listings for line in listing.read_text().splitlines()]


def _parse() -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m training.nano.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="training shards, from training.nano.corpus")
    parser.add_argument("--out", type=Path, required=True, help="state.pt, processor/ and export/ go here")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--utterances", type=int, help="length of the run, in utterances seen (repeatable)")
    length.add_argument("--minutes", type=float, help="length of the run, in minutes of training")
    parser.add_argument("--steps", type=int, help="stop here whatever the schedule says")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--processes", type=int, default=Options.processes)
    parser.add_argument("--batch-frames", type=int, default=Options.batch_frames, help="padded, per process and step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default=Options.device)
    parser.add_argument("--init", type=Path, help="start from this exported model and its tokenizer")
    add_watching(parser, Options.eval_minutes, Options.save_minutes)
    return Options(**vars(parser.parse_args()))


def main() -> None:
    """Entry point."""
    train(_parse())


if __name__ == "__main__":
    main()
