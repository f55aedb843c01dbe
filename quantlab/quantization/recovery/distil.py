"""Distillation: a quantized model learns the token distributions of the original on unlabelled audio.

Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531; with scales and zero points alone: EfficientQAT's second phase,
Chen et al. 2024, arXiv 2407.11062.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quantlab.config.recovery import RecoveryConfig
from quantlab.quantization.base import Pass
from quantlab.quantization.rounding.statistics import EnoughError
from quantlab.quantization.select import HEAD

WARM_UP = 0.1  # of the steps: the learning rate rises
LEAST_RATE = 0.05  # of the learning rate, at the end
BETAS = (0.9, 0.99)
CHECKS = 20  # of the held-out loss
_ZEROS = 0.1  # root mean square that a tensor of zeros counts with: LoRA's second matrix then has its usual rate


@dataclass(frozen=True)
class Example:
    """One utterance: how a model hears it, and what the original had before its output projection."""

    run: Pass
    hidden: torch.Tensor  # [tokens, d_model]


@dataclass
class Progress:
    """Where the training is."""

    step: int
    first: float  # loss on the held-out utterances before training
    best: float
    best_step: int
    since: int  # checks without a better loss

    def judge(self, loss: float) -> None:
        """Take in the loss of a check."""
        if loss < self.best:
            self.best, self.best_step, self.since = loss, self.step, 0
        else:
            self.since += 1


def examples(model: nn.Module, passes: Sequence[Pass]) -> list[Example]:
    """Run the original model over the calibration data; only what its output projection reads is kept."""
    with torch.no_grad():
        return [Example(run, _hidden(model, run)) for run in passes]


def _hidden(model: nn.Module, run: Pass) -> torch.Tensor:
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.append(inputs[0].detach().flatten(0, -2).cpu())
        raise EnoughError

    hook = model.get_submodule(HEAD).register_forward_pre_hook(keep)
    try:
        with suppress(EnoughError):
            run(model)
    finally:
        hook.remove()
    return found[0]


def divergence(model: Any, example: Example, head: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of KL(original ‖ model), in nats.

    Args:
        model: whose distributions are compared.
        example: an utterance.
        head: output projection of the original, [vocabulary, d_model].
    """
    found: Any = example.run(model)
    ours = found.logits.flatten(0, -2).float().log_softmax(-1)
    theirs = nn.functional.linear(example.hidden.to(head), head).float().log_softmax(-1)
    return nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear rise, then a half cosine."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2


def batches(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Indices of the utterances of each step, without end; every pass over the data has an order of its own."""
    epoch, left = 0, list[int]()
    while True:
        while len(left) < size:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
            left += order.tolist()
            epoch += 1
        yield left[:size]
        left = left[size:]


@contextmanager
def only(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within the block only these parameters have gradients."""
    before = {item: item.requires_grad for item in model.parameters()}
    try:
        for item in model.parameters():
            item.requires_grad_(False)
        for item in parameters:
            item.requires_grad_(True)
        yield
    finally:
        for item in model.parameters():
            item.requires_grad_(before.get(item, False))


@dataclass(frozen=True)
class Training:
    """What is trained, on what."""

    model: nn.Module
    parameters: Sequence[nn.Parameter]
    train: Sequence[Example]
    held_out: Sequence[Example]
    head: torch.Tensor  # output projection of the original
    how: RecoveryConfig
    seed: int

    def optimiser(self) -> torch.optim.Optimizer:
        """AdamW with one learning rate for tensors of all magnitudes: relative to the root mean square of each."""
        groups = []
        for item in self.parameters:
            size = item.detach().square().mean().sqrt().item() or _ZEROS
            groups.append({"params": [item], "lr": 0.0, "highest": self.how.learning_rate * size})
        return torch.optim.AdamW(groups, betas=BETAS, weight_decay=0.0)

    def begin(self) -> Progress:
        """The progress before the first step."""
        first = self.loss()
        return Progress(step=0, first=first, best=first, best_step=0, since=0)

    def loss(self) -> float:
        """Mean divergence over the held-out utterances."""
        with torch.no_grad():
            found = [divergence(self.model, example, self.head).item() for example in self.held_out]
        return sum(found) / len(found)

    def run(
        self,
        at: Progress,
        adam: torch.optim.Optimizer,
        checked: Callable[[Progress], None],
        tick: Callable[[int], None],
    ) -> None:
        """Train from `at`, which is updated, until the steps are done or no check is better `patience` times.

        Args:
            at: where the training is.
            adam: see `optimiser`.
            checked: called after each check of the held-out loss.
            tick: called after each step, with the number of steps.
        """
        order = batches(len(self.train), self.how.batch_size, self.seed)
        every = max(1, self.how.steps // CHECKS)
        for batch in itertools.islice(order, at.step, None):
            if at.step >= self.how.steps or at.since >= self.how.patience:
                break
            self._step(batch, at.step, adam)
            at.step += 1
            tick(at.step)
            if at.step % every == 0 or at.step == self.how.steps:
                at.judge(self.loss())
                checked(at)

    def _step(self, batch: Sequence[int], step: int, adam: torch.optim.Optimizer) -> None:
        for group in adam.param_groups:
            group["lr"] = group["highest"] * rate(step, self.how.steps)
        adam.zero_grad()
        for index in batch:
            (divergence(self.model, self.train[index], self.head) / len(batch)).backward()
        adam.step()
