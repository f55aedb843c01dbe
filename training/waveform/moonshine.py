"""The architecture, tokenizer and processor of nano_moonshine: a Moonshine of transformers' own classes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from training.nano import losses
from training.nano.data import character_ids
from training.nano.losses import IGNORED, LABEL_SMOOTHING
from training.nano.model import PROJECTION_STD, Heads
from training.nano.tokenizer import VOCABULARY_SIZE
from training.nano.voices import SAMPLE_RATE_HZ
from training.waveform.convolution import convolve, outputs_of
from training.waveform.data import Batch
from training.waveform.encoded import Encoded
from training.waveform.teacher import Teacher, copy_linear

D_MODEL, HEADS, FEED_FORWARD = (
    192,
    3,
    704,
)  # every Linear reads 192 or 704 features, both multiples of the usual group size 64
ENCODER_LAYERS, DECODER_LAYERS = 6, 2
MAX_TOKENS = 64
FILTER_NORM = 6.0  # of the first convolution's filters at the start: loud speech just reaches the bend of the tanh
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")  # ids 0, 1, 2 as in the published Moonshine models
_ALPHABET = [*"abcdefghijklmnopqrstuvwxyz'", "Ġ"]  # Ġ is how byte-level BPE writes a space


def train_processor(sentences: Iterable[str], size: int = VOCABULARY_SIZE) -> Wav2Vec2Processor:
    """Learn a byte-level BPE from `sentences` (training text only); the waveform is passed on as it is."""
    learner = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[0]))
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    learner.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=_ALPHABET, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    learner.train_from_iterator(sentences, trainer)
    unknown, start, end = SPECIAL_TOKENS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learner, unk_token=unknown, bos_token=start, eos_token=end, pad_token=end
    )
    extractor = Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLE_RATE_HZ, padding_value=0.0, do_normalize=False, return_attention_mask=True
    )
    return Wav2Vec2Processor(extractor, tokenizer)


def build(processor: Wav2Vec2Processor) -> MoonshineForConditionalGeneration:
    """A model with fresh weights, configured for `generate`."""
    _, start, end = processor.tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    special = {"pad_token_id": end, "bos_token_id": start, "eos_token_id": end, "decoder_start_token_id": start}
    config = MoonshineConfig(
        vocab_size=len(processor.tokenizer), hidden_size=D_MODEL, intermediate_size=FEED_FORWARD,
        encoder_num_hidden_layers=ENCODER_LAYERS, decoder_num_hidden_layers=DECODER_LAYERS,
        encoder_num_attention_heads=HEADS, decoder_num_attention_heads=HEADS, **special,
    )  # fmt: skip
    model = MoonshineForConditionalGeneration(config)
    model.generation_config = GenerationConfig(max_length=MAX_TOKENS, **special)
    _initialize(model)
    return model


@torch.no_grad()
def _initialize(model: MoonshineForConditionalGeneration) -> None:
    """For the first convolution filters evenly spaced in mel, in two phases; wider weights elsewhere, as in nano."""
    encoder = model.model.encoder
    filters, kernel = encoder.conv1.out_channels, encoder.conv1.kernel_size[0]
    mel = torch.linspace(_mel(60.0), _mel(7600.0), filters // 2)
    hz = 700 * (10 ** (mel / 2595) - 1)
    time_s = (torch.arange(kernel) - kernel // 2) / SAMPLE_RATE_HZ
    phase = 2 * math.pi * hz[:, None] * time_s
    waves = torch.cat([phase.cos(), phase.sin()]) * torch.hann_window(kernel, periodic=False)
    encoder.conv1.weight.copy_((waves / waves.norm(dim=1, keepdim=True) * FILTER_NORM)[:, None])
    for convolution in (encoder.conv2, encoder.conv3):
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and ".layers." in name and not name.endswith(("o_proj.weight", "fc2.weight")):
            nn.init.normal_(parameter, std=PROJECTION_STD)


def _mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


@dataclass
class Moonshine:
    """The model in training, with nano's two heads for characters on its encoder."""

    model: MoonshineForConditionalGeneration
    processor: Wav2Vec2Processor
    heads: Heads = field(default_factory=Heads)
    centre: float = 447.0  # sample in the middle of what the first frame reads
    stride: float = 384.0

    def front(self, batch: Batch) -> Tensor:
        """Input of the first layer, (batch, frames, 192), as the model makes it of each utterance alone."""
        encoder = self.model.model.encoder
        hidden = torch.tanh(convolve(batch.samples[..., None], encoder.conv1))
        hidden = normalized(hidden, outputs_of(batch.lengths, encoder.conv1), encoder.groupnorm)
        return functional.gelu(convolve(functional.gelu(convolve(hidden, encoder.conv2)), encoder.conv3))

    def encode(self, batch: Batch) -> Encoded:
        """The encoder's output, as the model makes it of each utterance alone."""
        front, encoder = self.front(batch), self.model.model.encoder
        frames = batch.lengths
        for convolution in (encoder.conv1, encoder.conv2, encoder.conv3):
            frames = outputs_of(frames, convolution)
        position = torch.arange(front.shape[1], device=front.device)
        inside = position < frames[:, None]
        rotary, hidden = encoder.rotary_emb(front, position_ids=position[None]), front
        for layer in encoder.layers:
            hidden = layer(hidden, attention_mask=inside[:, None, None], position_embeddings=rotary)
        return Encoded(front, encoder.layer_norm(hidden), frames)

    def losses(self, encoded: Encoded, texts: Sequence[str]) -> dict[str, Tensor]:
        """Cross entropy of the decoder, and the two of the heads (see `training.nano.losses`)."""
        inputs, labels = decoder_batch([self.processor.tokenizer(text).input_ids for text in texts], self.model)
        inside = torch.arange(encoded.hidden.shape[1]) < encoded.frames[:, None]
        decoded = self.model.model.decoder(
            input_ids=inputs, encoder_hidden_states=encoded.hidden, encoder_attention_mask=inside, use_cache=False
        )
        scores = self.model.proj_out(decoded.last_hidden_state).float()
        characters = [list(character_ids(text)) for text in texts]
        flat = losses.flat_targets(characters, encoded.frames, encoded.hidden.shape[1])
        return {
            "ce": functional.cross_entropy(
                scores.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=LABEL_SMOOTHING
            ),
            "ctc": losses.ctc_loss(self.heads.ctc(encoded.hidden).float(), characters, encoded.frames),
            "flat": functional.cross_entropy(
                self.heads.flat(encoded.hidden).float().flatten(0, 1), flat.flatten(), ignore_index=IGNORED
            ),
        }

    def total(self, values: dict[str, Tensor], progress: float, step: int) -> Tensor:
        """The weighted sum of the losses, as for nano."""
        return losses.total_loss(values, progress, losses.flat_start_weight(step))

    def layer_matrices(self) -> list[nn.Parameter]:
        """What Muon trains."""
        encoder, decoder = self.model.model.encoder, self.model.model.decoder
        parts = [encoder.layers, decoder.layers, encoder.conv2, encoder.conv3]
        return [p for part in parts for p in part.parameters() if p.ndim > 1]

    @torch.no_grad()
    def start_from(self, teacher: Teacher) -> None:
        """Copy nano's encoder layers as far as there is a place for them, and its heads, in place."""
        source, target = teacher.model.model.encoder, self.model.model.encoder
        for mine, theirs in zip(target.layers, source.layers, strict=True):
            for name, their_name in (("q_proj",) * 2, ("k_proj",) * 2, ("v_proj",) * 2, ("o_proj", "out_proj")):
                copy_linear(getattr(mine.self_attn, name), getattr(theirs.self_attn, their_name))
            copy_linear(mine.mlp.fc1, theirs.fc1, shift=theirs.final_layer_norm.bias)
            copy_linear(mine.mlp.fc2, theirs.fc2)
            mine.input_layernorm.weight.copy_(theirs.self_attn_layer_norm.weight)
            mine.post_attention_layernorm.weight.copy_(theirs.final_layer_norm.weight)
        target.layer_norm.weight.copy_(source.layer_norm.weight)
        for mine, theirs in ((self.heads.ctc, teacher.heads.ctc), (self.heads.flat, teacher.heads.flat)):
            copy_linear(mine, theirs, shift=source.layer_norm.bias)

    def transcribe(self, samples: np.ndarray) -> str:
        """Greedy transcript of a float32 16 kHz utterance, by transformers' own classes alone."""
        inputs = self.processor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            [ids] = self.model.generate(**inputs)
        text: str = self.processor.decode(ids, skip_special_tokens=True)
        return text.strip()


def normalized(hidden: Tensor, outputs: Tensor, norm: nn.GroupNorm) -> Tensor:
    """`norm`, of one group, over the first outputs of each utterance only.

    Args:
        hidden: (batch, outputs, channels).
        outputs: int64 (batch,), those without padding.
        norm: the layer.
    """
    inside = (torch.arange(hidden.shape[1], device=hidden.device) < outputs[:, None])[..., None]
    count = (outputs * hidden.shape[2])[:, None, None]
    values = hidden.float() * inside
    mean = values.sum((1, 2), keepdim=True) / count
    variance = ((values - mean) * inside).square().sum((1, 2), keepdim=True) / count
    return (hidden - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def decoder_batch(tokens: list[list[int]], model: MoonshineForConditionalGeneration) -> tuple[Tensor, Tensor]:
    """Decoder inputs (start, then text) and labels (text, then end), int64 (batch, width); labels after it are -100."""
    start, end = model.config.decoder_start_token_id, model.config.eos_token_id
    width = 1 + max(map(len, tokens))
    inputs, labels = torch.full((len(tokens), width), end), torch.full((len(tokens), width), IGNORED)
    for row, spelled in enumerate(tokens):
        inputs[row, : 1 + len(spelled)] = torch.tensor([start, *spelled])
        labels[row, : 1 + len(spelled)] = torch.tensor([*spelled, end])
    return inputs, labels
