"""Options and progress of a training run."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The command line of `training.nano.train`; its `--help` explains each."""

    data: Path
    out: Path
    utterances: int | None = None
    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    processes: int = 2
    batch_frames: int = 9000
    device: str = "cpu"
    init: Path | None = None
    digits: Path | None = None
    held_out: str | None = None
    dev: Path | None = None
    eval_minutes: float = 5.0
    eval_utterances: int = 48
    save_minutes: float = 3.0
    resume: bool = False


@dataclass
class Progress:
    """Position in the data and on the clock; saved with the state.

    `elapsed_s` is pure training time on the first process's clock. `batch` counts the groups of one batch per
    process within the current epoch; `short_only` tells whether that epoch has short utterances only.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    short_only: bool = False
    seen: int = 0
    elapsed_s: float = 0.0

    def share(self, options: Options) -> float:
        """Share of the run that is done, from 0 to 1."""
        if options.utterances is not None:
            return min(1.0, self.seen / options.utterances)
        if options.minutes is not None:
            return min(1.0, self.elapsed_s / (60 * options.minutes))
        raise ValueError("a run needs a length: utterances or minutes")

    def is_over(self, options: Options) -> bool:
        """Whether the schedule has ended or the last step is reached."""
        return self.share(options) >= 1 or self.step == options.steps


def add_watching(parser: argparse.ArgumentParser, eval_minutes: float, save_minutes: float) -> None:
    """The arguments of any training for evaluation on the way, and for going on after a stop."""
    parser.add_argument("--digits", type=Path, help="folder of <digit>_<speaker>_<index>.wav")
    parser.add_argument("--held-out", help="speaker of --digits never trained on (default: the first by name)")
    parser.add_argument("--dev", type=Path, help="folder with the dev manifest")
    parser.add_argument("--eval-minutes", type=float, default=eval_minutes)
    parser.add_argument("--eval-utterances", type=int, default=Options.eval_utterances, help="of each dev set")
    parser.add_argument("--save-minutes", type=float, default=save_minutes)
    parser.add_argument("--resume", action="store_true", help="go on from OUT/state.pt if it exists")
