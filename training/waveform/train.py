"""Train a model: `python -m training.waveform.train --model ctc|moonshine --data DIR --out DIR --utterances N`.

With `--teacher`, the folder of a trained nano, its encoder layers are the start, and its encoder's output on dry speech
is a hint for the first steps. A run is determined by its options, its data and the number of shards at each epoch's
start: shards that are written meanwhile are used from the next epoch. The state is saved periodically, and `--resume`
continues from it with the same result as an uninterrupted run.

Example: python -m training.waveform.train --model ctc --teacher quantlab/assets/nano --data data/waveforms
    --dev data/dev --out runs/nano_ctc --utterances 200000
"""

import argparse
from pathlib import Path

import torch

from training.nano.options import add_watching
from training.waveform.options import Options
from training.waveform.recognisers import NEW
from training.waveform.trainer import Trainer


def train(options: Options) -> None:
    """Run to the end; the result is in `options.out`/export.

    Raises:
        FileNotFoundError: without training shards.
    """
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    options.out.mkdir(parents=True, exist_ok=True)
    Trainer(options).run()


def _parse() -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m training.waveform.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=sorted(NEW), required=True)
    parser.add_argument("--data", type=Path, required=True, help="training shards, from training.waveform.corpus")
    parser.add_argument("--out", type=Path, required=True, help="state.pt and export/ go here")
    parser.add_argument("--utterances", type=int, required=True, help="length of the run, in utterances seen")
    parser.add_argument("--steps", type=int, help="stop here whatever the schedule says")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--threads", type=int, default=Options.threads)
    parser.add_argument("--batch-frames", type=int, default=Options.batch_frames, help="10 ms each, padded, per step")
    parser.add_argument("--teacher", type=Path, help="folder of a trained nano")
    parser.add_argument("--init", type=Path, help="start from this exported model, without hints")
    parser.add_argument("--rate", type=float, default=Options.rate, help="factor of both learning rates")
    add_watching(parser, Options.eval_minutes, Options.save_minutes)
    return Options(**vars(parser.parse_args()))


def main() -> None:
    """Entry point."""
    train(_parse())


if __name__ == "__main__":
    main()
