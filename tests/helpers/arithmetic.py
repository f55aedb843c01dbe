"""How large a quantized Whisper is, from the numbers of its architecture alone: no model, no library."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Shape:
    d: int
    ffn: int
    encoder_layers: int
    decoder_layers: int
    vocab: int
    mel: int
    frames: int
    positions: int

    @classmethod
    def of(cls, config):
        """Of a transformers `WhisperConfig`."""
        return cls(
            config.d_model, config.encoder_ffn_dim, config.encoder_layers, config.decoder_layers,
            config.vocab_size, config.num_mel_bins, config.max_source_positions, config.max_target_positions,
        )  # fmt: skip

    def linears(self):
        """(out, in, bias) of every Linear but the head, which shares the embedding's weight."""
        attention = [(self.d, self.d, True)] * 3 + [(self.d, self.d, False)]  # k_proj has no bias
        mlp = [(self.ffn, self.d, True), (self.d, self.ffn, True)]
        return (attention + mlp) * self.encoder_layers + (2 * attention + mlp) * self.decoder_layers

    def params(self):
        convolutions = 3 * self.mel * self.d + self.d + 3 * self.d * self.d + self.d
        embeddings = (self.vocab + self.frames + self.positions) * self.d
        norms = 2 * self.d * (2 * self.encoder_layers + 1 + 3 * self.decoder_layers + 1)
        return convolutions + embeddings + norms + sum(o * i + bias * o for o, i, bias in self.linears())


SMALL = Shape(768, 3072, 12, 12, 51865, 80, 1500, 448)  # openai/whisper-small, config.json


def weight_bytes(quant, o, i):
    """Bytes that the weight of one Linear (o × i) takes with everything that belongs to it."""
    groups = math.ceil(o * i / 64)
    scale_and_zero = 2 * FLOAT * groups
    quanto_scales = FLOAT + FLOAT  # of input and output, which it keeps for weight-only schemes too
    quanto_group = 128 if i % 128 == 0 else 96
    return {
        "torch_int8": o * i + 16,  # scale float64, zero point int64
        "smoothquant_int8": o * i + 16 * o,  # as above, for each output
        "quanto_int8": o * i + FLOAT * o + quanto_scales,
        "quanto_fp8": o * i + FLOAT * o + quanto_scales,
        "quanto_int8_static": o * i + FLOAT * o + quanto_scales,
        "quanto_int8_fp8_static": o * i + FLOAT * o + quanto_scales,
        "quanto_int4": o * i // 2 + 2 * FLOAT * o * i // quanto_group + quanto_scales,
        "quanto_int2": o * i // 4 + 2 * FLOAT * o * i // quanto_group + quanto_scales,
        "hqq_int8": o * i + scale_and_zero,
        "hqq_int4": o * i // 2 + scale_and_zero,
        "hqq_int3": math.ceil(groups / 10) * 64 * 4 + scale_and_zero,  # ten weights to an int32
        "hqq_int2": o * i // 4 + scale_and_zero,
        "hqq_ternary": o * i // 4 + scale_and_zero,
        "hqq_int1": o * i // 8 + scale_and_zero,
        "bnb_int8": o * i + FLOAT * o,
        "bnb_nf4": o * i // 2 + FLOAT * groups + CODEBOOK,
        "bnb_fp4": o * i // 2 + FLOAT * groups + CODEBOOK,
        # scales in 8 bit, 256 of them to an fp32 scale, and their mean
        "bnb_nf4_dq": o * i // 2 + groups + FLOAT * math.ceil(groups / 256) + FLOAT + CODEBOOK + SCALE_CODEBOOK,
    }[re.sub("^(gptq|awq|rtn)_", "hqq_", quant)]


# Every module of bitsandbytes has these for itself.
CODEBOOK = 16 * FLOAT  # the levels of a 4-bit format
SCALE_CODEBOOK = 256 * FLOAT  # the levels of the 8-bit scales


def size_bytes(quant, shape, head):
    """Bytes of the whole model. Quantizing the head unties it: the embedding stays in fp32 beside it."""
    total = FLOAT * shape.params()
    total += sum(weight_bytes(quant, o, i) - FLOAT * o * i for o, i, _ in shape.linears())
    return total + (weight_bytes(quant, shape.vocab, shape.d) if head else 0)
