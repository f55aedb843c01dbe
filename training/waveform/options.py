"""Options and progress of a training run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The command line of `training.waveform.train`; its `--help` explains each."""

    model: str
    data: Path
    out: Path
    utterances: int
    steps: int | None = None
    seed: int = 0
    threads: int = 1
    batch_frames: int = 6000
    teacher: Path | None = None
    init: Path | None = None
    rate: float = 1.0
    digits: Path | None = None
    held_out: str | None = None
    dev: Path | None = None
    eval_minutes: float = 10.0
    eval_utterances: int = 48
    save_minutes: float = 4.0
    resume: bool = False


@dataclass
class Progress:
    """Position in the data and on the clock; saved with the state.

    `shards` is how many the current epoch uses, as more may come while the run goes on. `batch` counts within the
    epoch, and `short_only` tells whether it has short utterances only.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    shards: int = 0
    short_only: bool = False
    seen: int = 0
    elapsed_s: float = 0.0

    def share(self, options: Options) -> float:
        """Share of the run that is done, from 0 to 1."""
        return min(1.0, self.seen / options.utterances)

    def is_over(self, options: Options) -> bool:
        """Whether the schedule has ended or the last step is reached."""
        return self.share(options) >= 1 or self.step == options.steps
