"""Times of tokens from cross-attention: where the decoder looks in the audio while it writes a token.

The method is that of OpenAI's whisper (its timing.py): the tokens are given to the decoder once more; the attention of
some heads to the audio, normalised over the tokens, smoothed by a median filter and averaged over the heads, is a
matrix of tokens and positions, through which dynamic time warping finds the best monotonic path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from quantlab.data.speech import SplitFeatures, frames_in
from quantlab.models.decoding import Alignment, Decoding

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

Matrix = npt.NDArray[np.float64]
POSITION_S = 0.02  # one position of the encoder's output
MEDIAN_WIDTH = 7  # positions


@runtime_checkable
class TimesWords(Protocol):
    """An engine that says when tokens were spoken."""

    def align(self, speech: SplitFeatures, rows: Sequence[Sequence[int]]) -> tuple[list[list[float]], float]:
        """Find the times of the tokens of one batch, outside of what `generate` times.

        Args:
            speech: the batch.
            rows: token ids of each utterance, as `generate` returned them.

        Returns:
            For each utterance the beginning of each token and the end of the last one, in seconds of its audio. The
            first is 0, as the path begins with the audio. Tokens that leave no room for the prompt and the end token
            among the decoder's positions have no times. And the seconds that this took.
        """


def of(decoding: Decoding) -> Alignment:
    """How tokens are aligned, of a cell that asked for it."""
    assert decoding.alignment is not None  # runtime.word_times
    return decoding.alignment


def positions_in(speech: SplitFeatures) -> list[int]:
    """Encoder positions with audio, of each utterance."""
    return [max(1, frames_in(audio_s) // 2) for audio_s in speech.audio_s]


@torch.no_grad()
def token_times(
    model: WhisperForConditionalGeneration,
    encoded: torch.Tensor,
    rows: Sequence[Sequence[int]],
    positions: Sequence[int],
    decoding: Decoding,
) -> list[list[float]]:
    """Times of tokens by a transformers model, quantized or not.

    Queries and keys are read off the projections of each cross-attention, so that any implementation of attention and
    any quantized layer will do.

    Args:
        model: on its device.
        encoded: output of its encoder, (utterances, positions, width).
        rows: token ids, see `TimesWords.align`.
        positions: with audio, of each utterance.
        decoding: for prompt, end token and heads.

    Returns:
        See `TimesWords.align`.
    """
    alignment = of(decoding)
    fitting = alignment.fitting(rows)
    before = len(decoding.prompt)
    inputs = [[*decoding.prompt, *row, decoding.end] for row in fitting]
    longest = max(map(len, inputs))
    ids = torch.tensor([[*row, *[decoding.end] * (longest - len(row))] for row in inputs], device=encoded.device)
    with _projections(model, {layer for layer, _ in alignment.heads}) as seen:
        model.model.decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False)
    count = int(model.config.decoder_attention_heads)
    queries = {layer: _by_head(seen[layer, "q_proj"], count) for layer, _ in alignment.heads}
    keys = {layer: _by_head(seen[layer, "k_proj"], count) for layer, _ in alignment.heads}
    found = []
    for index, (row, audio) in enumerate(zip(fitting, positions, strict=True)):
        scores = torch.stack(
            [
                queries[layer][index, head, : len(row) + before + 1] @ keys[layer][index, head, :audio].T
                for layer, head in alignment.heads
            ]
        )
        found.append(starts(attention_matrix(scores)[before - 1 : -1]))
    return found


@contextlib.contextmanager
def _projections(model: Any, layers: set[int]) -> Iterator[dict[tuple[int, str], torch.Tensor]]:
    """Within the block the queries and keys of cross-attention are kept, by layer and name of the projection."""
    seen: dict[tuple[int, str], torch.Tensor] = {}

    def keep(key: tuple[int, str]) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            seen[key] = output.detach().float()

        return hook

    hooks = [
        getattr(model.model.decoder.layers[layer].encoder_attn, name).register_forward_hook(keep((layer, name)))
        for layer in layers
        for name in ("q_proj", "k_proj")
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _by_head(projected: torch.Tensor, heads: int) -> torch.Tensor:
    """(utterances, places, width) → (utterances, heads, places, width of a head), divided by its width's fourth root.

    The product of two of them is divided by the root, as in attention.
    """
    utterances, places, width = projected.shape
    split = projected.view(utterances, places, heads, width // heads).transpose(1, 2)
    return split * (width // heads) ** -0.25


def attention_matrix(scores: torch.Tensor) -> Matrix:
    """Attention of all heads as one matrix.

    Args:
        scores: products of queries and keys, (heads, tokens, positions).

    Returns:
        The mean over the heads, float64, (tokens, positions).
    """
    weights = scores.softmax(dim=-1)
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    normal = ((weights - mean) / deviation.clamp(min=1e-12)).cpu().double().numpy()
    found: Matrix = median_filter(np.nan_to_num(normal), MEDIAN_WIDTH).mean(axis=0)  # NaN: of a broken model
    return found


def median_filter(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Running median of odd `width` along the last axis, mirrored at the ends; unchanged if that is too short."""
    half = width // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    found: npt.NDArray[np.float64] = np.median(
        np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1
    )
    return found


def starts(gain: Matrix) -> list[float]:
    """Seconds at which the best path enters each row of a matrix of attention, (tokens, positions)."""
    first: dict[int, int] = {}
    for row, position in best_path(-gain):
        first.setdefault(row, position)
    return [first[row] * POSITION_S for row in range(len(gain))]


def best_path(cost: Matrix) -> list[tuple[int, int]]:
    """Dynamic time warping: the cheapest path from the first to the last entry of a matrix.

    A step goes one row down, one column to the right, or both; of equally cheap ways the diagonal is taken last.

    Args:
        cost: (rows, columns).

    Returns:
        (row, column) of each entry on the path.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    listed, before = cost.tolist(), total[0].tolist()
    for row, values in enumerate(listed, start=1):
        here = [np.inf]
        for column, value in enumerate(values, start=1):
            here.append(value + min(before[column - 1], before[column], here[column - 1]))
        total[row], before = here, here
    row, column = rows, columns
    path = [(row - 1, column - 1)]
    while (row, column) != (1, 1):
        diagonal, above, left = total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]
        if diagonal < above and diagonal < left:
            row, column = row - 1, column - 1
        elif above < left:
            row -= 1
        else:
            column -= 1
        path.append((row - 1, column - 1))
    return path[::-1]
