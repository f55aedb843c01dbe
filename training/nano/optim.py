"""Muon for matrices and convolutions, in bfloat16 and distributed over processes; the learning-rate schedule."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

# Quintic Newton-Schulz coefficients of Keller Jordan et al., "Muon: An optimizer for hidden layers" (2024).
_A, _B, _C = 3.4445, -4.7750, 2.0315
NEWTON_SCHULZ_STEPS = 5
WARMUP_STEPS = 60
HOLD_SHARE = 0.3  # share of the run at the full rate, which then falls linearly to zero


def orthogonalize(matrix: Tensor, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """Push the singular values of a matrix toward 1 (to about 0.7 .. 1.2) and keep its singular vectors.

    Args:
        matrix: (rows, columns) float32.
        steps: Newton-Schulz iterations.

    Returns:
        float32 of the same shape; the products run in bfloat16, which is what a CPU with AMX or AVX512-BF16 is fast at.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = (wide / (wide.norm() + 1e-7)).to(torch.bfloat16)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    result = x if matrix.shape[0] <= matrix.shape[1] else x.T
    return result.float()


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled so that an update has the same root mean square as AdamW's.

    The scale 0.2 sqrt(max(rows, columns)) is that of Liu et al., "Muon is Scalable for LLM Training" (2025), 2.2. All
    processes must hold the same gradients; each orthogonalises its share of the matrices and they exchange results.
    """

    def __init__(self, params: Sequence[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.05):
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters in place; every one must have a gradient, and a closure is not used."""
        for group in self.param_groups:
            updates = _shared([self._direction(p, group["momentum"]) for p in group["params"]])
            for parameter, update in zip(group["params"], updates, strict=True):
                scale = 0.2 * math.sqrt(max(update.shape))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(parameter)
        state["average"].lerp_(parameter.grad, 1 - momentum)
        return torch.lerp(parameter.grad, state["average"], momentum).flatten(1)  # a kernel counts as inputs


def _shared(directions: list[Tensor]) -> list[Tensor]:
    """Orthogonalise every direction, each on one process; the sum of the parts is the whole."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    # In order of size, to processes in turn, so that these get equal work.
    order = sorted(range(len(directions)), key=lambda i: -directions[i].numel())
    mine = set(order[rank::world])
    parts = [orthogonalize(d) if i in mine else torch.zeros_like(d) for i, d in enumerate(directions)]
    return sum_over_processes(parts) if world > 1 else parts


def sum_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """All-reduce several tensors as one buffer; returns new tensors of the same shapes."""
    buffer = torch.cat([tensor.reshape(-1) for tensor in tensors])
    if dist.is_initialized():
        dist.all_reduce(buffer)
    pieces = buffer.split([tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]


def rate_factor(step: int, progress: float) -> float:
    """The share of the peak learning rate at `step` when `progress` (0 to 1) of the run is over."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = 1.0 if progress < HOLD_SHARE else max(0.0, (1 - progress) / (1 - HOLD_SHARE))
    return warmup * decay
