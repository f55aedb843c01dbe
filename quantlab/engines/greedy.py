"""Greedy decoding loop over a static cache, with every tensor of a step at a fixed address.

A step takes no arguments and returns nothing, so it is compiled once, and on CUDA recorded as a CUDA graph that is
replayed by one call. Launching the kernels one by one takes longer than running them: on an H100 the eager step of
large-v2 is limited by the CPU, not by the GPU (docs/results/gpu.md).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from quantlab.models.decoding import Decoding

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

WARM_UP = 3  # calls before recording a graph, as required by torch.cuda.CUDAGraph


class GreedyDecoder:
    """Decoder of full batches: encoder output → token ids.

    Args:
        model: a transformers model, quantized or not, on its device.
        device: device of the model.
        decoding: batch size, prompt and suppressed tokens.
        encoded: encoder output of any batch, (utterances, positions, width); its values do not matter.
    """

    def __init__(
        self, model: WhisperForConditionalGeneration, device: torch.device, decoding: Decoding, encoded: torch.Tensor
    ) -> None:
        self._model: Any = model
        self._decoding = decoding
        self._cache = _static_cache(model, decoding)
        self._encoded = torch.empty_like(encoded)
        self._prompt = torch.tensor([decoding.prompt] * decoding.batch_size, device=device)
        self._token = torch.zeros((decoding.batch_size, 1), dtype=torch.long, device=device)
        self._ended = torch.zeros(decoding.batch_size, dtype=torch.bool, device=device)
        self._banned = torch.zeros(model.config.vocab_size, device=device)  # 0, or -inf for suppressed tokens
        self._banned_first = torch.zeros_like(self._banned)
        self.graphs = 0  # CUDA graphs recorded

        self._set_inputs(encoded, forced=True)
        self._begin()  # allocates the cache
        compiled = torch.compile(self._step, dynamic=False)
        compiled()
        self._start, self._next = self._recorded(self._begin, device), self._recorded(compiled, device)

    def decode(self, encoded: torch.Tensor, least: int, most: int) -> torch.Tensor:
        """Decode a batch.

        Args:
            encoded: encoder output, of the shape given to the constructor.
            least: 0, or `most` to ignore the end token.
            most: most tokens per utterance.

        Returns:
            Token ids, (utterances, tokens); ids after an end token are meaningless.
        """
        forced = least > 0
        assert not forced or least == most
        self._set_inputs(encoded, forced)
        self._start()
        tokens = [self._token.clone()]
        while len(tokens) < most and (forced or not self._ended.all()):
            self._next()
            tokens.append(self._token.clone())
        return torch.cat(tokens, dim=1)

    def _set_inputs(self, encoded: torch.Tensor, forced: bool) -> None:
        how = self._decoding
        self._encoded.copy_(encoded)
        self._ended.fill_(False)
        never = [*how.suppressed, *([how.end] if forced else [])]
        _ban(self._banned, never)
        _ban(self._banned_first, [*never, *how.suppressed_first])

    def _begin(self) -> None:
        """Process the prompt, and choose the first token."""
        for cache in (self._cache.self_attention_cache, self._cache.cross_attention_cache):
            for layer in cache.layers:
                layer.cumulative_length.zero_()
        self._cache.is_updated = dict.fromkeys(self._cache.is_updated, False)  # cross attention: new utterances
        self._choose(self._prompt, self._banned_first)

    def _step(self) -> None:
        """Decode one more token."""
        self._choose(self._token, self._banned)

    def _choose(self, ids: torch.Tensor, banned: torch.Tensor) -> None:
        hidden = self._model.model.decoder(
            input_ids=ids, encoder_hidden_states=self._encoded, past_key_values=self._cache, use_cache=True
        ).last_hidden_state
        logits = self._model.proj_out(hidden[:, -1]).float()
        token = (logits + banned).argmax(dim=-1)
        self._token.copy_(token.unsqueeze(1))
        self._ended.logical_or_(token == self._decoding.end)

    def _recorded(self, call: Callable[[], None], device: torch.device) -> Callable[[], None]:
        """Record the call as a graph on CUDA; elsewhere return it unchanged."""
        if device.type != "cuda":
            return call
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        self.graphs += 1
        return graph.replay


def _ban(banned: torch.Tensor, tokens: list[int]) -> None:
    banned.zero_()
    if tokens:
        banned[tokens] = float("-inf")


def _static_cache(model: WhisperForConditionalGeneration, decoding: Decoding) -> Any:
    """A cache for prompt, tokens (including warm-up calls before a graph is recorded) and encoder output."""
    from transformers import EncoderDecoderCache, StaticCache

    config = copy.deepcopy(model.config)
    config.num_hidden_layers = model.config.decoder_layers  # WhisperConfig's means the encoder's
    tokens = len(decoding.prompt) + max(decoding.max_new_tokens, decoding.forced_tokens, WARM_UP + 1)
    return EncoderDecoderCache(
        StaticCache(config=config, max_cache_len=tokens),
        StaticCache(config=config, max_cache_len=model.config.max_source_positions),
    )
