"""What the model loses if one module alone is stored in few bits, measured or estimated on calibration data.

Both are in nats per token: the Kullback-Leibler divergence of the distributions over the next token, of the fp32 model
and of the model with the module quantized; or its estimate of second order by squared gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from quantlab.quantization.rounding.levels import fitted
from quantlab.util.progress import over

if TYPE_CHECKING:
    from quantlab.recogniser.calibrate import Lesson

Losses = dict[str, dict[float, float]]  # module → bits → loss


def rounded(weight: torch.Tensor, bits: float, group_size: int) -> torch.Tensor:
    """A weight matrix rounded to the levels with the least squared error, [outputs, inputs]."""
    groups = weight.float().unflatten(1, (-1, group_size))
    levels = fitted(groups, round(2**bits - 1), torch.ones(group_size, device=weight.device))
    return levels.values(levels.codes(groups)).flatten(1).to(weight.dtype)


def divergences(
    model: Any, formats: Mapping[str, Sequence[float]], group_size: int, lessons: Iterable[Lesson]
) -> Losses:
    """Mean divergence over the tokens of the calibration data: one pass for each module and number of bits.

    Modules of the decoder run on the output of the encoder that is kept.

    Args:
        model: unquantized, on its device; it is left as it was.
        formats: bits to try for each module.
        group_size: weights per scale.
        lessons: the calibration data.
    """
    with torch.inference_mode():
        kept = [
            (lesson, heard := model.get_encoder()(lesson.inputs), _predicted(model, lesson, heard))
            for lesson in lessons
        ]
        found: Losses = {}
        for name, some in over(list(formats.items()), "modules measured", timed=True):
            linear: Any = model.get_submodule(name)
            in_encoder = "encoder" in name.split(".")
            found[name] = {}
            for bits in some:
                with _stored(linear, rounded(linear.weight, bits, group_size)):
                    losses = [
                        _divergence(before, _predicted(model, lesson, None if in_encoder else heard))
                        for lesson, heard, before in kept
                    ]
                found[name][bits] = sum(losses) / sum(len(before) for _, _, before in kept)
    return found


def estimates(model: Any, formats: Mapping[str, Sequence[float]], group_size: int, lessons: Iterable[Lesson]) -> Losses:
    """Estimate from one backward pass: half the sum over weights of squared gradient × squared rounding error.

    The mean over tokens of squared gradients of the log-likelihood is the diagonal of the Fisher information, by which
    the divergence grows with small changes of the weights. Source: GenPTQ, EMNLP Findings 2025.566.

    Args:
        model: as in `divergences`.
        formats: bits to try for each module.
        group_size: weights per scale.
        lessons: the calibration data, one utterance each.
    """
    weights = {name: model.get_submodule(name).weight for name in formats}
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    tokens = 0
    for lesson in over(list(lessons), "utterances learnt from", timed=True):
        with torch.enable_grad():
            likelihood = _predicted(model, lesson).gather(1, lesson.targets.unsqueeze(1)).sum()
            gradients = torch.autograd.grad(likelihood, list(weights.values()))
        for total, gradient in zip(squares.values(), gradients, strict=True):
            total += gradient.square()
        tokens += len(lesson.targets)
    found: Losses = {}
    with torch.no_grad():
        for name, weight in weights.items():
            errors = {bits: (rounded(weight, bits, group_size) - weight).square() for bits in formats[name]}
            found[name] = {bits: (squares[name] * error).sum().item() / tokens / 2 for bits, error in errors.items()}
    return found


def _predicted(model: Any, lesson: Lesson, heard: Any = None) -> torch.Tensor:
    """Log-probabilities of every token that the decoder predicts, [tokens, vocabulary]."""
    audio = {"input_features": lesson.inputs} if heard is None else {"encoder_outputs": heard}
    logits = model(**audio, decoder_input_ids=lesson.tokens, use_cache=False).logits
    return logits[lesson.predicts].float().log_softmax(-1)


def _divergence(before: torch.Tensor, after: torch.Tensor) -> float:
    """Σ p · (log p − log q) over all tokens."""
    return (before.exp() * (before - after)).sum(dtype=torch.float64).item()


@contextlib.contextmanager
def _stored(linear: Any, weight: torch.Tensor) -> Iterator[None]:
    """Within the block, the module has this weight."""
    original = linear.weight.data
    linear.weight.data = weight
    try:
        yield
    finally:
        linear.weight.data = original
