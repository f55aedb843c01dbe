"""The training loop of one process."""

import functools
import json
import random
from collections.abc import Iterator
from dataclasses import asdict

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from training.nano import augment, checkpoint, data, digits, evaluate, losses, optim
from training.nano.clock import Interval, Stopwatch
from training.nano.features import MAX_FRAMES
from training.nano.model import Heads, build, layer_matrices
from training.nano.options import Options, Progress

MUON_RATE, ADAMW_RATE = 6e-3, 2e-3
GRADIENT_NORM = 2.0
SHORT_FIRST_STEPS = 600  # epochs that begin before this step have short utterances only
GENTLE_STEPS = 1500  # steps over which the augmentation grows to full strength
FULL_WINDOW_SHARE = (0.08, 0.3)  # share of batches padded to 6 s, at the start and at the end
LONGEST_PADDING = 60  # frames
ROOM_SHARE = 0.3
LOG_STEPS = 50


class Trainer:
    """One process's model, optimisers and data. All processes hold the same weights at every step."""

    def __init__(self, options: Options, rank: int):
        self.options, self.rank = options, rank
        self.device = torch.device(options.device)
        self.processor = WhisperProcessor.from_pretrained(options.init or options.out / "processor")
        self.recordings = digits.load(options.digits) if options.digits else []
        self.held_out = options.held_out or next(iter(digits.speakers(self.recordings)), None)
        self.speech = self._speech()
        self.noise = data.noise_bank(self.speech, options.seed).to(self.device)
        torch.manual_seed(options.seed)
        self.model, self.heads = build(self.processor), Heads()
        if options.init:
            checkpoint.load_weights(options.init, self.model, self.heads)
        self.model.to(self.device).train()
        self.heads.to(self.device)
        self.optimizers = optimizers(self.model, self.heads)
        self.progress = Progress(short_only=not options.init)
        if options.resume and (options.out / checkpoint.STATE_FILE).exists():
            self._restore()

    def _speech(self) -> data.Speech:
        speech = data.read_shards(self.options.data, self.processor)
        if known := [recording for recording in self.recordings if recording.speaker != self.held_out]:
            data.add_digits(speech, known, self.processor, self.options.seed)
        return speech

    def run(self) -> None:
        """Train to the end, with periodic evaluation on dev and saving."""
        stopwatch = Stopwatch(self.progress.elapsed_s)
        save_due, eval_due = Interval(self.options.save_minutes), Interval(self.options.eval_minutes)
        for indices in self._batches():
            values = self.step(indices, stopwatch.elapsed_s())
            if values and self.rank == 0:
                self._log("step", **values)
            if eval_due.passed(self.progress.elapsed_s):
                with stopwatch:
                    self._evaluate(self.options.eval_utterances)
            if save_due.passed(self.progress.elapsed_s):
                self.save()
        self.save()
        self._evaluate(None)

    def _batches(self) -> Iterator[list[int]]:
        """Yield this process's batches until the run is over; keeps the position in `progress`."""
        world = self.options.processes
        while True:
            plan = data.epoch_plan(
                self.speech.utterances,
                self.progress.epoch,
                self.options.seed,
                self.options.batch_frames,
                short_only=self.progress.short_only,
            )
            for group in range(self.progress.batch, len(plan) // world):
                if self.progress.is_over(self.options):
                    return
                self.progress.batch = group + 1
                yield plan[group * world + self.rank]
            self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0
            self.progress.short_only &= self.progress.step < SHORT_FIRST_STEPS

    def step(self, indices: list[int], elapsed_s: float) -> dict[str, float]:
        """One update on this process's batch; returns the losses every `LOG_STEPS` steps, otherwise an empty dict."""
        share = self.progress.share(self.options)
        for optimizer, rate in zip(self.optimizers, (MUON_RATE, ADAMW_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * optim.rate_factor(self.progress.step, share)
        dice = self._dice()
        full = float(dice.uniform(0, 1, 1)) < FULL_WINDOW_SHARE[0] + share * (
            FULL_WINDOW_SHARE[1] - FULL_WINDOW_SHARE[0]
        )
        if full:  # as many as take the time of a cropped batch
            indices = indices[: max(1, self.options.batch_frames // MAX_FRAMES)]
        features, lengths = self._features(indices, dice, full=full)
        utterances = [self.speech.utterances[i] for i in indices]
        values = losses.all_losses(self.model, self.heads, self.processor, features, lengths, utterances)
        flat_weight = 0.0 if self.options.init else losses.flat_start_weight(self.progress.step)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=False)
        losses.total_loss(values, share, flat_weight).backward()
        seen, self.progress.elapsed_s = self._average_gradients(len(indices), elapsed_s)
        nn.utils.clip_grad_norm_(self._parameters(), GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        self.progress.step += 1
        self.progress.seen += seen
        return {k: v.item() for k, v in values.items()} if self.progress.step % LOG_STEPS == 0 else {}

    def _dice(self) -> augment.Dice:
        """Generator seeded by the step number, so that a resumed run equals an uninterrupted one."""
        key = f"{self.options.seed}-{self.progress.step}-{self.rank}"
        return augment.Dice(random.Random(key).getrandbits(62), self.device)

    def _features(self, indices: list[int], dice: augment.Dice, *, full: bool) -> tuple[Tensor, Tensor]:
        """Augmented features (batch, 80, frames) and the number of encoder frames with speech.

        The frames end soon after the longest utterance, or with the window if `full`, as they do in inference.
        """
        strength = 1.0 if self.options.init else min(1.0, 0.2 + 0.8 * self.progress.step / GENTLE_STEPS)
        in_room = (dice.uniform(0, 1, len(indices)) < ROOM_SHARE * strength).tolist()
        batch = self.speech.batch(indices, in_room)
        batch = augment.Batch(batch.log_power.to(self.device), batch.lengths.to(self.device))
        batch = augment.augment(batch, self.noise, dice, strength)
        frames = MAX_FRAMES if full else min(MAX_FRAMES, int(batch.lengths.max()) + int(dice.whole(LONGEST_PADDING, 1)))
        frames += frames % 2  # the encoder halves them
        return augment.finish(batch, dice, frames, strength), (batch.lengths + 1) // 2

    def _parameters(self) -> list[nn.Parameter]:
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    def _average_gradients(self, size: int, elapsed_s: float) -> tuple[int, float]:
        """Average gradients over processes, in place; returns total utterances and first process's clock."""
        world = self.options.processes
        if world == 1:
            return size, elapsed_s
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        notes = torch.tensor([float(size), elapsed_s if self.rank == 0 else 0.0], device=self.device)
        *sums, notes = optim.sum_over_processes([*gradients, notes])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total / world)
        return round(notes[0].item()), notes[1].item()

    def _evaluate(self, limit: int | None) -> None:
        """Log the dev WER in percent; each process evaluates and logs some of the parts."""
        if self.options.dev is None:
            return
        parts = evaluate.dev_sets(self.options.dev, limit)
        if self.held_out:
            parts["digits_held_out"] = digits.held_back_strings(self.recordings, self.held_out, limit or 150)
        mine = sorted(parts)[self.rank :: self.options.processes]
        self.model.eval()
        transcriber = functools.partial(evaluate.transcribe, self.model, self.processor)
        wers = {name: evaluate.wer_of(transcriber, parts[name]) for name in mine}
        self.model.train()
        self._log("dev", **wers)
        if self.options.processes > 1:
            dist.barrier()

    def _log(self, kind: str, **values: float) -> None:
        entry = {"kind": kind, **asdict(self.progress)} | {name: round(value, 4) for name, value in values.items()}
        print(json.dumps(entry), flush=True)

    def save(self) -> None:
        """Save the state for `--resume`, and export the current weights, from the first process."""
        if self.rank == 0:
            state = {
                "model": self.model.state_dict(),
                "heads": self.heads.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "progress": asdict(self.progress),
            }
            checkpoint.save_atomically(state, self.options.out / checkpoint.STATE_FILE)
            checkpoint.export(self.model, self.processor, self.heads, self.options.out / "export")

    def _restore(self) -> None:
        state = checkpoint.load_state(self.options.out / checkpoint.STATE_FILE)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])


def optimizers(model: WhisperForConditionalGeneration, heads: Heads) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside layers, AdamW for all else that is trained."""
    matrices = [p for _, p in layer_matrices(model)]
    own = {id(p) for p in matrices}
    rest = [p for p in [*model.parameters(), *heads.parameters()] if p.requires_grad and id(p) not in own]
    return [optim.Muon(matrices, MUON_RATE), torch.optim.AdamW(rest, ADAMW_RATE, betas=(0.9, 0.98), weight_decay=0.01)]
