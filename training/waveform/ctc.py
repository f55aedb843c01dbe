"""The architecture and processor of nano_ctc: a Wav2Vec2 of transformers' own classes with a character CTC head."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from training.nano import losses
from training.nano.model import CHARACTERS, CTC_BLANK
from training.nano.voices import SAMPLE_RATE_HZ
from training.waveform.convolution import convolve
from training.waveform.data import Batch
from training.waveform.encoded import Encoded
from training.waveform.teacher import Teacher, copy_linear

D_MODEL, HEADS, LAYERS = 192, 3, 6  # every Linear reads 192 or 768 features, both multiples of the usual group size 64
CONV_DIM = (64, 64, 128, 128, 192, 192, 192)
CONV_KERNEL, CONV_STRIDE = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # as in Wav2Vec2: 320 samples, 50 Hz
WORD_DELIMITER = "|"
UNUSED_BIAS = -6.0  # of the tokens that CTC never writes, at the start
# The first five as in the published Wav2Vec2 models; <pad> is also CTC's blank.
VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", WORD_DELIMITER, *CHARACTERS.strip())


def build_processor() -> Wav2Vec2Processor:
    """Characters as tokens; the waveform is normalised to zero mean and unit variance."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps({token: i for i, token in enumerate(VOCABULARY)}))
        tokenizer = Wav2Vec2CTCTokenizer(str(path), word_delimiter_token=WORD_DELIMITER)
    extractor = Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLE_RATE_HZ, padding_value=0.0, do_normalize=True, return_attention_mask=True
    )
    return Wav2Vec2Processor(extractor, tokenizer)


def build(processor: Wav2Vec2Processor) -> Wav2Vec2ForCTC:
    """A model with fresh weights."""
    tokenizer = processor.tokenizer
    config = Wav2Vec2Config(
        vocab_size=len(tokenizer), hidden_size=D_MODEL, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        intermediate_size=4 * D_MODEL, conv_dim=CONV_DIM, conv_kernel=CONV_KERNEL, conv_stride=CONV_STRIDE,
        conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True, num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=12, hidden_dropout=0.0, activation_dropout=0.0, attention_dropout=0.0,
        feat_proj_dropout=0.0, final_dropout=0.0, layerdrop=0.0, apply_spec_augment=False, mask_time_prob=0.0,
        ctc_loss_reduction="mean", ctc_zero_infinity=True, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return Wav2Vec2ForCTC(config)


@dataclass
class Ctc:
    """The model in training."""

    model: Wav2Vec2ForCTC
    processor: Wav2Vec2Processor
    heads: nn.Module = field(default_factory=nn.Module)  # none: the model's own head is trained
    centre: float = 199.5  # sample in the middle of what the first frame reads
    stride: float = 320.0

    def front(self, batch: Batch) -> Tensor:
        """Input of the first layer before positions, (batch, frames, 192), as the model makes it in inference."""
        hidden = normalized(batch)[..., None]
        for layer in self.model.wav2vec2.feature_extractor.conv_layers:
            hidden = functional.gelu(layer.layer_norm(convolve(hidden, layer.conv)))
        return self.model.wav2vec2.feature_projection(hidden)[0]

    def encode(self, batch: Batch) -> Encoded:
        """The encoder's output, as the model makes it in inference."""
        front, encoder = self.front(batch), self.model.wav2vec2.encoder
        frames = self.model._get_feat_extract_output_lengths(batch.lengths)
        inside = torch.arange(front.shape[1], device=front.device) < frames[:, None]
        hidden = front * inside[..., None]
        hidden = hidden + encoder.pos_conv_embed(hidden)
        for layer in encoder.layers:
            hidden = layer(hidden, attention_mask=inside[:, None, None])
        return Encoded(front, encoder.layer_norm(hidden), frames)

    def losses(self, encoded: Encoded, texts: Sequence[str]) -> dict[str, Tensor]:
        """The CTC loss per character."""
        scores = self.model.lm_head(encoded.hidden).float()
        characters = [self.processor.tokenizer(text).input_ids for text in texts]
        return {"ctc": losses.ctc_loss(scores, characters, encoded.frames, self.model.config.pad_token_id)}

    def total(self, values: dict[str, Tensor], progress: float, step: int) -> Tensor:
        """The only loss."""
        return values["ctc"]

    def layer_matrices(self) -> list[nn.Parameter]:
        """What Muon trains."""
        parts = [self.model.wav2vec2.encoder.layers, self.model.wav2vec2.feature_extractor.conv_layers[1:]]
        return [p for part in parts for p in part.parameters() if p.ndim > 1]

    @torch.no_grad()
    def start_from(self, teacher: Teacher) -> None:
        """Copy nano's encoder layers and its head for characters, in place."""
        source, target = teacher.model.model.encoder, self.model.wav2vec2.encoder
        for mine, theirs in zip(target.layers, source.layers, strict=True):
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                copy_linear(getattr(mine.attention, name), getattr(theirs.self_attn, name))
            copy_linear(mine.feed_forward.intermediate_dense, theirs.fc1)
            copy_linear(mine.feed_forward.output_dense, theirs.fc2)
            mine.layer_norm.load_state_dict(theirs.self_attn_layer_norm.state_dict())
            mine.final_layer_norm.load_state_dict(theirs.final_layer_norm.state_dict())
        target.layer_norm.weight.copy_(source.layer_norm.weight)
        head, rows, taught = self.model.lm_head, torch.tensor(_head_rows()), teacher.heads.ctc
        head.weight.zero_()
        head.bias.fill_(UNUSED_BIAS)
        head.weight[rows] = taught.weight
        head.bias[rows] = taught.bias + taught.weight @ source.layer_norm.bias  # see `Hint`

    def transcribe(self, samples: np.ndarray) -> str:
        """Greedy transcript of a float32 16 kHz utterance, by transformers' own classes alone."""
        inputs = self.processor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            [ids] = self.model(**inputs).logits.argmax(-1)
        text: str = self.processor.decode(ids)
        return text.strip()


def _head_rows() -> list[int]:
    """Row of the model's head for each of nano's characters and its blank."""
    assert len(CHARACTERS) == CTC_BLANK
    return [VOCABULARY.index(c.replace(" ", WORD_DELIMITER)) for c in CHARACTERS] + [VOCABULARY.index("<pad>")]


def normalized(batch: Batch) -> Tensor:
    """Zero mean and unit variance over each utterance, zero after its end, as `Wav2Vec2FeatureExtractor` does."""
    count = batch.lengths[:, None]
    inside = torch.arange(batch.samples.shape[1], device=batch.samples.device) < count
    mean = batch.samples.sum(1, keepdim=True) / count
    centred = (batch.samples - mean) * inside
    return centred / (centred.square().sum(1, keepdim=True) / count + 1e-7).sqrt()
