"""The training loop."""

import functools
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import torch
from torch import Tensor, nn

from training.nano import checkpoint, digits, evaluate, optim
from training.nano.augment import Dice
from training.nano.clock import Interval, Stopwatch
from training.nano.data import epoch_plan
from training.nano.losses import FLAT_START_STEPS
from training.nano.trainer import GENTLE_STEPS, GRADIENT_NORM, LOG_STEPS, SHORT_FIRST_STEPS
from training.waveform import augment, data, recognisers, teacher
from training.waveform.options import Options, Progress
from training.waveform.recognisers import NEW, Recogniser, read, write

MUON_RATE, ADAMW_RATE = 3e-3, 2e-3
FRONT_STEPS = 300  # steps that train the convolutions only, towards the teacher's
HINT_STEPS = 2500  # steps after which the teacher is silent
FULL_WINDOW_SHARE = 0.1  # share of batches padded to 6 s
LONGEST_PADDING_S = 0.6
AVERAGE = 0.998  # decay of the average of the weights, which is what is evaluated and exported
CPU = torch.device("cpu")


class Trainer:
    """A model, its optimisers and its data, in one process on the CPU."""

    def __init__(self, options: Options):
        self.options = options
        self.recordings = digits.load(options.digits) if options.digits else []
        self.held_out = options.held_out or next(iter(digits.speakers(self.recordings)), None)
        self.progress = Progress(short_only=not options.init)
        state = self._saved_state()
        if state:
            self.progress = Progress(**state["progress"])
        self.speech = self._speech()
        self.around = data.surroundings(self.speech, options.seed)
        self.teacher = teacher.load(options.teacher) if options.teacher else None
        torch.manual_seed(options.seed)
        self.recogniser = self._recogniser()
        self.optimizers = optimizers(self.recogniser)
        self.average = {name: weight.detach().clone() for name, weight in self._weights().items()}
        if state:
            self._restore(state)

    def _speech(self) -> data.Speech:
        """The shards of the current epoch: those that it began with, or all that there are."""
        speech = data.read_shards(self.options.data, self.progress.shards or None)
        self.progress.shards = len(speech.shards)
        if known := [recording for recording in self.recordings if recording.speaker != self.held_out]:
            data.add_digits(speech, known, self.options.seed)
        return speech

    def _recogniser(self) -> Recogniser:
        if self.options.init:
            recogniser = read(self.options.init)
        else:
            recogniser = NEW[self.options.model](self.options.out / "processor")
            if self.teacher:
                recogniser.start_from(self.teacher)
        recogniser.model.train()
        return recogniser

    def run(self) -> None:
        """Train to the end, with periodic evaluation on dev and saving."""
        stopwatch = Stopwatch(self.progress.elapsed_s)
        save_due, eval_due = Interval(self.options.save_minutes), Interval(self.options.eval_minutes)
        for indices in self._batches():
            values = self.step(indices)
            self.progress.elapsed_s = stopwatch.elapsed_s()
            if self.progress.step % LOG_STEPS == 0:
                self._log("step", **{name: value.item() for name, value in values.items()})
            if eval_due.passed(self.progress.elapsed_s):
                with stopwatch:
                    self._evaluate(self.options.eval_utterances)
            if save_due.passed(self.progress.elapsed_s):
                self.save()
        self.save()
        self._evaluate(None)

    def _batches(self) -> Iterator[list[int]]:
        """Yield batches until the run is over; keeps the position in `progress`."""
        while True:
            plan = epoch_plan(
                self.speech.utterances,
                self.progress.epoch,
                self.options.seed,
                self.options.batch_frames,
                short_only=self.progress.short_only,
            )
            for number in range(self.progress.batch, len(plan)):
                if self.progress.is_over(self.options):
                    return
                self.progress.batch = number + 1
                yield plan[number]
            self.progress.epoch, self.progress.batch, self.progress.shards = self.progress.epoch + 1, 0, 0
            self.progress.short_only &= self.progress.step < SHORT_FIRST_STEPS
            self.speech = self._speech()

    def step(self, indices: list[int]) -> dict[str, Tensor]:
        """One update; returns the losses of the batch."""
        share, step = self.progress.share(self.options), self.progress.step
        for optimizer, rate in zip(self.optimizers, (MUON_RATE, ADAMW_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * self.options.rate * optim.rate_factor(step, share)
        dry, batch = self._batch(indices)
        total, values = self._losses(dry, batch, share)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=False)
        total.backward()
        trained = [p for o in self.optimizers for group in o.param_groups for p in group["params"]]
        for parameter in trained:
            if parameter.grad is None:  # not reached by the first steps' loss
                parameter.grad = torch.zeros_like(parameter)
        nn.utils.clip_grad_norm_(trained, GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        self._update_average()
        self.progress.step += 1
        self.progress.seen += len(indices)
        return values

    def _batch(self, indices: list[int]) -> tuple[data.Batch, data.Batch]:
        """The dry batch and its augmented variant, padded beyond the longest utterance as in inference."""
        # Seeded by the step number, so that a resumed run equals an uninterrupted one.
        dice = Dice(random.Random(f"{self.options.seed}-{self.progress.step}").getrandbits(62), CPU)
        strength = 1.0 if self.options.init else min(1.0, 0.2 + 0.8 * self.progress.step / GENTLE_STEPS)
        dry = self.speech.batch(indices, dice, strength)
        batch = augment.augment(dry, self.around, dice, strength)
        extra_s = float(dice.uniform(0, LONGEST_PADDING_S, 1))
        full = float(dice.uniform(0, 1, 1)) < FULL_WINDOW_SHARE
        width = batch.samples.shape[1] + int(extra_s * data.SAMPLE_RATE_HZ)
        return dry, augment.padded(batch, data.MAX_SAMPLES if full else min(data.MAX_SAMPLES, width))

    def _losses(self, dry: data.Batch, batch: data.Batch, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its parts; the network runs in bfloat16 autocast, the losses in float32."""
        recogniser, step = self.recogniser, self.progress.step
        weight = 0.0 if self.teacher is None or self.options.init else max(0.0, 1 - step / HINT_STEPS)
        hint = self.teacher.hint(dry.samples) if self.teacher and weight else None
        timing = recogniser.centre, recogniser.stride
        with torch.autocast("cpu", torch.bfloat16):
            if hint and step < FRONT_STEPS:
                front = recogniser.front(batch).float()
                frames = ((batch.lengths - 400) // int(recogniser.stride)).clamp(min=1)
                loss = teacher.hint_loss(front, hint.front, frames, *timing)
                return loss, {"front": loss.detach()}
            encoded = recogniser.encode(batch)
            values = recogniser.losses(encoded, batch.texts)
        # The flat start is over in a model that is trained further.
        total = recogniser.total(values, share, FLAT_START_STEPS if self.options.init else step)
        if hint:
            values["front"] = teacher.hint_loss(encoded.front.float(), hint.front, encoded.frames, *timing)
            values["hidden"] = teacher.hint_loss(encoded.hidden.float(), hint.hidden, encoded.frames, *timing)
            total = total + weight * (values["front"] + values["hidden"])
        return total, {name: value.detach() for name, value in values.items()}

    def _weights(self) -> dict[str, Tensor]:
        return {**self.recogniser.model.state_dict(), **self.recogniser.heads.state_dict(prefix="heads.")}

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average is over a tenth of the steps so far, so that the start is soon forgotten.
        decay = min(AVERAGE, 1 - 10 / (self.progress.step + 10))
        for name, weight in self._weights().items():
            self.average[name].lerp_(weight, 1 - decay)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The average in place of the weights, in evaluation mode, within the block."""
        own = {name: weight.clone() for name, weight in self._weights().items()}
        self._load(self.average)
        self.recogniser.model.eval()
        try:
            yield
        finally:
            self._load(own)
            self.recogniser.model.train()

    @torch.no_grad()
    def _load(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self._weights().items():
            weight.copy_(weights[name])

    def _evaluate(self, limit: int | None) -> None:
        """Log the dev WER in percent."""
        if self.options.dev is None:
            return
        parts = evaluate.dev_sets(self.options.dev, limit)
        if self.held_out:
            parts["digits_held_out"] = digits.held_back_strings(self.recordings, self.held_out, limit or 150)
        transcriber = functools.partial(recognisers.transcribe, self.recogniser)
        with self._averaged():
            self._log("dev", **{name: evaluate.wer_of(transcriber, pairs) for name, pairs in parts.items()})

    def _log(self, kind: str, **values: float) -> None:
        entry = {"kind": kind, **asdict(self.progress)} | {name: round(value, 4) for name, value in values.items()}
        print(json.dumps(entry), flush=True)

    def save(self) -> None:
        """Save the state for `--resume`, and export the average of the weights."""
        state = {
            "weights": self._weights(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        checkpoint.save_atomically(state, self.options.out / checkpoint.STATE_FILE)
        with self._averaged():
            write(self.recogniser, self.options.out / "export")

    def _saved_state(self) -> dict | None:
        path = self.options.out / checkpoint.STATE_FILE
        return checkpoint.load_state(path) if self.options.resume and path.exists() else None

    def _restore(self, state: dict) -> None:
        self._load(state["weights"])
        self.average = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def optimizers(recogniser: Recogniser) -> list[torch.optim.Optimizer]:
    """Muon for the matrices in layers and convolutions, AdamW for all else."""
    matrices = recogniser.layer_matrices()
    own = {id(p) for p in matrices}
    rest = [p for p in [*recogniser.model.parameters(), *recogniser.heads.parameters()] if id(p) not in own]
    return [optim.Muon(matrices, MUON_RATE), torch.optim.AdamW(rest, ADAMW_RATE, betas=(0.9, 0.98), weight_decay=0.01)]
