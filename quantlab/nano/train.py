"""Train the model: `python -m quantlab.nano.train --data DIR --out DIR --utterances N [--digits DIR] [--dev DIR]`.

On a CPU two single-threaded processes in bfloat16 autocast were fastest (`--processes 2`); on a GPU take one
(`--device cuda --processes 1 --batch-frames 60000`). A run is determined by its data, seed, processes and length. It
saves its state now and then; `--resume` goes on from there as if it had never stopped.

Example: python -m quantlab.nano.train --data data/train --dev data/dev --out runs/nano --utterances 500000 --seed 0
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from quantlab.nano import augment, checkpoint, data, digits, evaluate, optim
from quantlab.nano.model import CTC_BLANK, Heads, build, encode, flat_targets, layer_matrices
from quantlab.nano.tokenizer import prompt_ids, train_processor

MUON_RATE, ADAMW_RATE = 6e-3, 2e-3
GRADIENT_NORM = 2.0
LABEL_SMOOTHING = 0.05
CTC_SHARE, LATE_CTC_SHARE, LATE = 0.4, 0.15, 0.85  # of the loss; from this progress on the late one
FLAT_START_STEPS = 400  # the flat-start loss fades to nothing over these
SHORT_FIRST_STEPS = 600  # epochs that begin before this step hold short utterances only
GENTLE_STEPS = 1500  # augmentation reaches its full strength
FULL_WINDOW_SHARE = (0.08, 0.25)  # of the batches padded to 6 s, at the start and at the end
ROOM_SHARE = 0.3


@dataclass(frozen=True)
class Options:
    """What the command line says; `--help` explains it."""

    data: Path
    out: Path
    utterances: int | None
    minutes: float | None
    seed: int
    processes: int
    batch_frames: int
    device: str
    init: Path | None
    digits: Path | None
    held_out: str | None
    dev: Path | None
    eval_minutes: float
    eval_utterances: int
    save_minutes: float
    resume: bool
    steps: int | None


@dataclass
class Progress:
    """How far the run has come; `elapsed_s` is training time alone, on the first process's clock."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seen: int = 0
    elapsed_s: float = 0.0

    def share(self, options: Options) -> float:
        """0 at the start, 1 at the end."""
        if options.utterances is not None:
            return self.seen / options.utterances
        assert options.minutes is not None
        return self.elapsed_s / (60 * options.minutes)


class Trainer:
    """One process's model, optimisers and data."""

    def __init__(self, options: Options, rank: int):
        self.options, self.rank = options, rank
        self.device = torch.device(options.device)
        self.processor = load_processor(options)
        self.recordings = digits.load(options.digits) if options.digits else []
        self.held_out = options.held_out or (digits.speakers(self.recordings)[0] if self.recordings else None)
        self.speech = data.read_shards(options.data, self.processor)
        if self.recordings:
            known = [r for r in self.recordings if r.speaker != self.held_out]
            data.add_digits(self.speech, known, self.processor, options.seed)
        self.noise = data.noise_bank(self.speech, options.seed).to(self.device)
        torch.manual_seed(options.seed)
        self.model, self.heads = build(self.processor), Heads()
        if options.init:
            checkpoint.load_weights(options.init, self.model, self.heads)
        self.model.to(self.device).train()
        self.heads.to(self.device)
        self.optimizers = _optimizers(self.model, self.heads)
        self.progress = Progress()
        self.warm = options.init is not None
        if options.resume and (options.out / checkpoint.STATE_FILE).exists():
            self._restore()

    def run(self) -> None:
        """Train to the end, evaluating and saving on the way."""
        start = time.perf_counter() - self.progress.elapsed_s
        next_save = next_eval = None
        while self.progress.share(self.options) < 1 and self.progress.step != self.options.steps:
            plan = data.epoch_plan(
                self.speech, self.progress.epoch, self.options.seed, self.options.batch_frames,
                short_only=not self.warm and self.progress.step < SHORT_FIRST_STEPS,
            )  # fmt: skip
            world = self.options.processes
            for group in range(self.progress.batch, len(plan) // world):
                losses = self._step(plan[group * world + self.rank], time.perf_counter() - start)
                self.progress.batch = group + 1
                if self.progress.step % 50 == 0 and self.rank == 0:
                    self._log("step", **losses)
                now = self.progress.elapsed_s / 60  # agreed on by all processes
                next_save, next_eval = (
                    next_save or now + self.options.save_minutes,
                    next_eval or now + self.options.eval_minutes,
                )
                if now >= next_eval and self.options.dev:
                    paused = time.perf_counter()
                    self._evaluate(self.options.eval_utterances)
                    start += time.perf_counter() - paused
                    next_eval = now + self.options.eval_minutes
                if now >= next_save:
                    self.save()
                    next_save = now + self.options.save_minutes
                if self.progress.share(self.options) >= 1 or self.progress.step == self.options.steps:
                    break
            else:
                self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0
        self.save()
        if self.options.dev:
            self._evaluate(None)

    def _step(self, indices: list[int], elapsed_s: float) -> dict[str, float]:
        share = min(1.0, self.progress.share(self.options))
        for optimizer, rate in zip(self.optimizers, (MUON_RATE, ADAMW_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * optim.rate_factor(self.progress.step, share)
        losses = self._losses(indices, share)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=False)
        losses["total"].backward()
        seen, self.progress.elapsed_s = self._average_gradients(len(indices), elapsed_s)
        torch.nn.utils.clip_grad_norm_(self._parameters(), GRADIENT_NORM)
        for optimizer in self.optimizers:
            optimizer.step()
        self.progress.step += 1
        self.progress.seen += seen
        return {name: loss.item() for name, loss in losses.items()} if self.progress.step % 50 == 0 else {}

    def _losses(self, indices: list[int], share: float) -> dict[str, Tensor]:
        step = self.progress.step
        dice = augment.Dice(hash((self.options.seed, step, self.rank)) % 2**62, self.device)
        features, lengths = self._features(indices, dice, share)
        utterances = [self.speech.utterances[i] for i in indices]
        inputs, labels = decoder_batch([list(u.tokens) for u in utterances], self.processor)
        inputs, labels = inputs.to(self.device), labels.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            hidden = encode(self.model, features)
            decoded = self.model.model.decoder(input_ids=inputs, encoder_hidden_states=hidden, use_cache=False)
            logits = self.model.proj_out(decoded.last_hidden_state)
            frame_scores, flat_scores = self.heads.ctc(hidden), self.heads.flat(hidden)
        characters = [list(u.characters) for u in utterances]
        losses = {
            "ce": F.cross_entropy(
                logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=LABEL_SMOOTHING
            ),
            "ctc": ctc_loss(frame_scores.float(), characters, lengths),
        }
        ctc_share = CTC_SHARE if share < LATE else LATE_CTC_SHARE
        losses["total"] = (1 - ctc_share) * losses["ce"] + ctc_share * losses["ctc"]
        flat_weight = 0.0 if self.warm else max(0.0, 1 - step / FLAT_START_STEPS)
        targets = flat_targets(characters, lengths.cpu(), hidden.shape[1]).to(self.device)
        losses["flat"] = F.cross_entropy(flat_scores.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        # Always part of the sum, so that its head has a gradient (of zero) to average.
        losses["total"] = losses["total"] + flat_weight * losses["flat"]
        return losses

    def _features(self, indices: list[int], dice: augment.Dice, share: float) -> tuple[Tensor, Tensor]:
        """Augmented features (batch, 80, frames) and the number of encoder frames that hold speech."""
        strength = 1.0 if self.warm else min(1.0, 0.2 + 0.8 * self.progress.step / GENTLE_STEPS)
        in_room = (dice.uniform(0, 1, len(indices)) < ROOM_SHARE * strength).tolist()
        batch = self.speech.batch(indices, in_room)
        batch = augment.Batch(batch.log_power.to(self.device), batch.lengths.to(self.device))
        batch = augment.augment(batch, self.noise, dice, strength)
        longest = int(batch.lengths.max())
        full_share = FULL_WINDOW_SHARE[0] + share * (FULL_WINDOW_SHARE[1] - FULL_WINDOW_SHARE[0])
        padding = int(dice.whole(60, 1))
        full = float(dice.uniform(0, 1, 1)) < full_share
        frames = data.features.MAX_FRAMES if full else min(data.features.MAX_FRAMES, longest + padding)
        frames += frames % 2
        return augment.finish(batch, dice, frames, strength), (batch.lengths + 1) // 2

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]]

    def _average_gradients(self, size: int, elapsed_s: float) -> tuple[int, float]:
        """Average gradients over processes, in place; agree on utterances seen and on the first process's clock."""
        world = self.options.processes
        if world == 1:
            return size, elapsed_s
        parameters = self._parameters()
        notes = torch.tensor([float(size), elapsed_s if self.rank == 0 else 0.0])
        *gradients, notes = optim.sum_over_processes([p.grad for p in parameters] + [notes])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad.copy_(gradient / world)
        return round(notes[0].item()), notes[1].item()

    def _evaluate(self, limit: int | None) -> None:
        """Dev WER; the processes take turns with its parts and each logs its own."""
        parts = evaluate.dev_sets(self.options.dev, limit)
        if self.recordings:
            parts["digits_held_out"] = digits.test_strings(self.recordings, self.held_out, limit or 150)
        mine = sorted(parts)[self.rank :: self.options.processes]
        self.model.eval()
        wers = {name: evaluate.wer_of(self.model, self.processor, parts[name]) for name in mine}
        self.model.train()
        self._log("dev", **wers)
        if self.options.processes > 1:
            dist.barrier()

    def _log(self, kind: str, **values: float) -> None:
        entry = {"kind": kind, **asdict(self.progress)} | {name: round(value, 4) for name, value in values.items()}
        print(json.dumps(entry), flush=True)

    def save(self) -> None:
        """State for `--resume` and an export of the present weights, by the first process."""
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


def load_processor(options: Options) -> WhisperProcessor:
    """The processor of the starting weights, else the one learned from the training text."""
    source = options.init or options.out / "processor"
    return WhisperProcessor.from_pretrained(source)


def _optimizers(model: WhisperForConditionalGeneration, heads: Heads) -> list[torch.optim.Optimizer]:
    matrices = [p for _, p in layer_matrices(model)]
    own = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in own] + list(heads.parameters())
    return [optim.Muon(matrices, MUON_RATE), torch.optim.AdamW(rest, ADAMW_RATE, betas=(0.9, 0.98), weight_decay=0.01)]


def decoder_batch(tokens: list[list[int]], processor: WhisperProcessor) -> tuple[Tensor, Tensor]:
    """Decoder inputs (prompt, then text) and labels (text, then end; -100 where the prompt or nothing is predicted)."""
    prompt, end = prompt_ids(processor), processor.tokenizer.eos_token_id
    width = len(prompt) + max(map(len, tokens))
    inputs, labels = torch.full((len(tokens), width), end), torch.full((len(tokens), width), -100)
    for row, spelled in enumerate(tokens):
        inputs[row, : len(prompt) + len(spelled)] = torch.tensor(prompt + spelled)
        labels[row, len(prompt) - 1 : len(prompt) + len(spelled)] = torch.tensor([*spelled, end])
    return inputs, labels


def ctc_loss(scores: Tensor, characters: list[list[int]], lengths: Tensor) -> Tensor:
    """Mean CTC loss per character; `scores` float32 (batch, frames, characters + 1)."""
    targets = torch.tensor([c for spelled in characters for c in spelled], device=scores.device)
    sizes = torch.tensor([len(spelled) for spelled in characters], device=scores.device)
    log_probabilities = scores.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probabilities, targets, lengths, sizes, blank=CTC_BLANK, zero_infinity=True)


def _work(rank: int, options: Options) -> None:
    torch.set_num_threads(1 if options.device == "cpu" else 4)
    torch.set_flush_denormal(True)
    if options.processes > 1:
        dist.init_process_group("gloo", rank=rank, world_size=options.processes)
    Trainer(options, rank).run()
    if options.processes > 1:
        dist.destroy_process_group()


def _options() -> Options:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m quantlab.nano.train", description=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="training shards, from quantlab.nano.corpus")
    parser.add_argument("--out", type=Path, required=True, help="state.pt, processor/ and export/ go here")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--utterances", type=int, help="length of the run, in utterances seen (repeatable)")
    length.add_argument("--minutes", type=float, help="length of the run, in minutes of training")
    parser.add_argument("--steps", type=int, help="stop here whatever the schedule says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-frames", type=int, default=9000, help="padded frames per process and step")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--init", type=Path, help="start from this exported model and its tokenizer")
    parser.add_argument("--digits", type=Path, help="folder of <digit>_<speaker>_<index>.wav")
    parser.add_argument("--held-out", help="speaker of --digits never trained on (default: the first by name)")
    parser.add_argument("--dev", type=Path, help="folder with the dev manifest")
    parser.add_argument("--eval-minutes", type=float, default=5.0)
    parser.add_argument("--eval-utterances", type=int, default=48, help="of each dev set, while training")
    parser.add_argument("--save-minutes", type=float, default=3.0)
    parser.add_argument("--resume", action="store_true", help="go on from DIR/state.pt if it exists")
    return Options(**vars(parser.parse_args()))


def main() -> None:
    """Entry point."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.init and not (options.out / "processor").exists():
        lines = [line for listing in sorted(options.data.glob("*.jsonl")) for line in listing.read_text().splitlines()]
        train_processor(json.loads(line)["text"] for line in lines).save_pretrained(options.out / "processor")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    if options.processes == 1:
        _work(0, options)
    else:
        torch.multiprocessing.spawn(_work, (options,), nprocs=options.processes)


if __name__ == "__main__":
    main()
