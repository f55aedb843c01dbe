"""Greedy decoding loop over a static cache, every tensor of a step at a fixed address.

So a step takes no arguments and returns nothing: it is compiled once, and on CUDA recorded as a CUDA graph, which is
replayed by one call. Launching its kernels one by one takes longer than they do: on an H100 large-v2's eager step is
limited by the processor, not by the GPU (docs/results/gpu.md).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from quantlab.models.decoding import Decoding

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

WARM_UP = 3  # calls before a graph is recorded, as torch.cuda.CUDAGraph asks for


class GreedyDecoder:
    """Encoder output → token ids, a full batch at a time.

    Args:
        model: of transformers, quantized or not, on its device.
        device: where it is.
        decoding: batch size, prompt, and which tokens never come.
        heard: the encoder's output for some batch, (utterances, positions, width); its values do not matter.
    """

    def __init__(
        self, model: WhisperForConditionalGeneration, device: torch.device, decoding: Decoding, heard: torch.Tensor
    ) -> None:
        self._model: Any = model
        self._decoding = decoding
        self._cache = _static_cache(model, decoding)
        self._heard = torch.empty_like(heard)
        self._prompt = torch.tensor([decoding.prompt] * decoding.batch_size, device=device)
        self._token = torch.zeros((decoding.batch_size, 1), dtype=torch.long, device=device)
        self._ended = torch.zeros(decoding.batch_size, dtype=torch.bool, device=device)
        self._banned = torch.zeros(model.config.vocab_size, device=device)  # 0, or -inf for what must not come
        self._banned_first = torch.zeros_like(self._banned)
        self.graphs = 0  # CUDA graphs recorded

        self._listen(heard, forced=True)
        self._begin()  # the cache takes its place in memory
        compiled = torch.compile(self._step, dynamic=False)
        compiled()
        self._start, self._next = self._recorded(self._begin, device), self._recorded(compiled, device)

    def decode(self, heard: torch.Tensor, least: int, most: int) -> torch.Tensor:
        """Decode a batch.

        Args:
            heard: the encoder's output, of the shape given to the constructor.
            least: 0, or `most`: decode that many tokens, end token or not.
            most: tokens for each utterance.

        Returns:
            Token ids, (utterances, tokens); what follows an end token is of no meaning.
        """
        forced = least > 0
        assert not forced or least == most
        self._listen(heard, forced)
        self._start()
        tokens = [self._token.clone()]
        while len(tokens) < most and (forced or not self._ended.all()):
            self._next()
            tokens.append(self._token.clone())
        return torch.cat(tokens, dim=1)

    def _listen(self, heard: torch.Tensor, forced: bool) -> None:
        how = self._decoding
        self._heard.copy_(heard)
        self._ended.fill_(False)
        never = [*how.suppressed, *([how.end] if forced else [])]
        _ban(self._banned, never)
        _ban(self._banned_first, [*never, *how.suppressed_first])

    def _begin(self) -> None:
        """The prompt, and the first token after it."""
        for cache in (self._cache.self_attention_cache, self._cache.cross_attention_cache):
            for layer in cache.layers:
                layer.cumulative_length.zero_()
        self._cache.is_updated = dict.fromkeys(self._cache.is_updated, False)  # cross attention: another utterance
        self._choose(self._prompt, self._banned_first)

    def _step(self) -> None:
        """One token more."""
        self._choose(self._token, self._banned)

    def _choose(self, ids: torch.Tensor, banned: torch.Tensor) -> None:
        hidden = self._model.model.decoder(
            input_ids=ids, encoder_hidden_states=self._heard, past_key_values=self._cache, use_cache=True
        ).last_hidden_state
        logits = self._model.proj_out(hidden[:, -1]).float()
        token = (logits + banned).argmax(dim=-1)
        self._token.copy_(token.unsqueeze(1))
        self._ended.logical_or_(token == self._decoding.end)

    def _recorded(self, call: Callable[[], None], device: torch.device) -> Callable[[], None]:
        """On CUDA a graph of the call, else the call itself."""
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
    """Room for prompt and tokens, also those of the calls before a graph is recorded, and for all that is heard."""
    from transformers import EncoderDecoderCache, StaticCache

    config = copy.deepcopy(model.config)
    config.num_hidden_layers = model.config.decoder_layers  # WhisperConfig's means the encoder's
    tokens = len(decoding.prompt) + max(decoding.max_new_tokens, decoding.forced_tokens, WARM_UP + 1)
    return EncoderDecoderCache(
        StaticCache(config=config, max_cache_len=tokens),
        StaticCache(config=config, max_cache_len=model.config.max_source_positions),
    )
