"""Recovery of a quantized model: what it learns from, which of its tensors are trained, and what is kept of it."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn

from quantlab.config.recovery import RecoveryConfig
from quantlab.config.schema import QuantConfig
from quantlab.quantization.adapters import adapters, add_adapters
from quantlab.quantization.base import Pass, Quantizer, layer_of
from quantlab.quantization.portable import plain
from quantlab.quantization.recovery.distil import Example, Progress, Training, examples, only
from quantlab.quantization.recovery.trainable import Recovers, Trainable
from quantlab.quantization.select import HEAD, replace
from quantlab.quantization.tensors import leaves
from quantlab.records.schema import Recovered
from quantlab.util.errors import ConfigError
from quantlab.util.files import cache_dir, replace_whole
from quantlab.util.machine import versions


class Recovery:
    """A recovery, prepared while the model is still the original."""

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        quant: QuantConfig,
        how: RecoveryConfig,
        passes: Sequence[Pass],
        seed: int,
    ) -> None:
        """Run the original model over the calibration data.

        Args:
            model: before quantization, on its device.
            names: the modules to be quantized.
            quant: its `recover` says what is trained.
            how: steps, learning rate and stopping.
            passes: one for each calibration utterance; they keep gradients.
            seed: of the order of the utterances.

        Raises:
            ConfigError: too few utterances for a held-out part.
        """
        self._quant, self._how, self._seed = quant, how, seed
        least = 2
        if len(passes) < least:
            raise ConfigError(
                f"quant.recover={quant.recover} needs {least} calibration utterances or more, one of them held out; "
                f"there are {len(passes)}"
            )
        self._examples = examples(model, passes)
        head: Any = model.get_submodule(HEAD)
        self._head = head.weight.detach()
        self._unrounded: dict[str, torch.Tensor] = {}
        if quant.recover == "weights":  # no copies: what a quantizer folds into the weights is in them before it rounds
            self._unrounded = {name: _weight(model, name) for name in names}

    def run(
        self, model: nn.Module, names: Sequence[str], quantizer: Quantizer, tick: Callable[[int], None]
    ) -> Recovered:
        """Train the quantized model in place.

        The state is kept in the cache, under a hash of all that it depends on: a training that was interrupted goes on,
        and a finished one is not repeated.

        Args:
            model: the quantized model, on its device.
            names: its quantized modules.
            quantizer: which made them.
            tick: called after each step, with the number of steps.
        """
        layer = cast("Recovers", layer_of(quantizer))  # see registry.why_no_recovery
        key = self._key(model)
        if self._quant.recover == "lora":
            add_adapters(model, names, self._quant.lora_rank, self._seed)
            with layer.trainable(model, names):
                return self._train(model, adapters(model), key, tick)
        packed: dict[str, Any] = {name: model.get_submodule(name) for name in names}
        opened = {
            name: Trainable(layer.unpack(module), module.bias, self._unrounded.get(name))
            for name, module in packed.items()
        }
        for name, module in opened.items():
            replace(model, name, module)
        own = {id(item) for module in opened.values() for item in module.parameters()}
        trained = [item for item in model.parameters() if item.ndim <= 1 or id(item) in own]
        found = self._train(model, trained, key, tick)
        for name, module in opened.items():
            layer.repack(packed[name], module.rounded())
            if module.bias is not None:
                packed[name].bias.data = module.bias.detach().to(packed[name].bias.dtype)
            replace(model, name, packed[name])
        return found

    def _train(
        self, model: nn.Module, trained: Sequence[nn.Parameter], key: str, tick: Callable[[int], None]
    ) -> Recovered:
        training = Training(model, trained, *self._split(), self._head, self._how, self._seed)
        with only(model, trained):
            state = _State(training, key)
            at = state.at
            training.run(at, state.adam, state.keep, tick)
            state.restore_best()
        return Recovered(
            steps=at.step,
            best_step=at.best_step,
            loss_before=at.first,
            loss_after=at.best,
            utterances=len(training.train),
            held_out=len(training.held_out),
            parameters=sum(item.numel() for item in trained),
        )

    def _split(self) -> tuple[Sequence[Example], Sequence[Example]]:
        """The utterances to train on, and those held out."""
        count = len(self._examples)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self._seed)).tolist()
        cut = min(max(1, round(self._how.held_out * count)), count - 1)
        return [self._examples[index] for index in order[cut:]], [self._examples[index] for index in order[:cut]]

    def _key(self, model: nn.Module) -> str:
        """Hash of the quantized model, the original's output, all settings and the versions that train."""
        rank = self._quant.lora_rank if self._quant.recover == "lora" else None
        by = versions(("quantlab", "torch"))
        digest = hashlib.sha256(f"{by} {self._quant.recover} {rank} {self._how!r} {self._seed}".encode())
        hidden = [example.hidden for example in self._examples]
        for tensor in (*hidden, *self._unrounded.values(), *plain(leaves(model)).values()):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


class _State:
    """The state of a training, in memory and in the cache."""

    def __init__(self, training: Training, key: str) -> None:
        self._parameters = training.parameters
        self._path = cache_dir() / "recovery" / f"{key}.pt"
        self.adam = training.optimiser()
        self.at, self._best = self._load() or (training.begin(), self._values())

    def _values(self) -> list[torch.Tensor]:
        return [item.detach().cpu().clone() for item in self._parameters]

    def keep(self, at: Progress) -> None:
        """Write the state; called after each check."""
        if at.best_step == at.step:
            self._best = self._values()
        state = {"at": vars(at), "values": self._values(), "best": self._best, "adam": self.adam.state_dict()}
        with contextlib.suppress(OSError, RuntimeError):  # torch's, for a full disk
            replace_whole(self._path, lambda fresh: torch.save(state, fresh))

    def _load(self) -> tuple[Progress, list[torch.Tensor]] | None:
        if not self._path.exists():
            return None
        try:
            found = torch.load(self._path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None  # damaged: train from the start
        _fill(self._parameters, found["values"])
        self.adam.load_state_dict(found["adam"])
        return Progress(**found["at"]), found["best"]

    def restore_best(self) -> None:
        """Go back to the parameters with the smallest held-out loss."""
        _fill(self._parameters, self._best)


def _fill(parameters: Iterable[torch.Tensor], values: Iterable[torch.Tensor]) -> None:
    with torch.no_grad():
        for item, value in zip(parameters, values, strict=True):
            item.copy_(value)


def _weight(model: nn.Module, name: str) -> torch.Tensor:
    linear: Any = model.get_submodule(name)
    return linear.weight.detach()
