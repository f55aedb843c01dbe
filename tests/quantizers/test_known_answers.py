"""Size reductions of Whisper-small that follow from its architecture: arXiv 2511.08093, tables 2 and 3."""

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from helpers.arithmetic import SMALL, Shape, size_bytes
from helpers.quantizing import quant_config, quantize

PUBLISHED = {"torch_int8": 57, "quanto_int8": 57, "hqq_int4": 69, "hqq_int3": 71, "bnb_nf4": 70}  # percent
TOLERANCE = 0.7  # points


def whisper_small(layers):
    """The real architecture with uniform weights, `layers` deep on both sides."""
    config = WhisperConfig(
        d_model=768, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072, vocab_size=51865, num_mel_bins=80,
        max_source_positions=1500, max_target_positions=448,
    )  # fmt: skip
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    model.to_empty(device="cpu").tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.05, 0.05)
    return model.eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_arithmetic_on_twelve_layers(name):
    size = size_bytes(name, SMALL, quant_config(name).head)
    assert 100 * (1 - size / (4 * SMALL.params())) == pytest.approx(PUBLISHED[name], abs=TOLERANCE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_arithmetic_is_what_the_libraries_store(name):
    """One layer a side of the real widths; all layers are alike, and twelve take HQQ half a minute."""
    quant = quant_config(name)
    model, _, evidence, _ = quantize(whisper_small(layers=1), quant)
    assert evidence.verified
    assert evidence.size_bytes == size_bytes(name, Shape.of(model.config), quant.head)


@pytest.mark.parametrize("name", ["torch_int8", "bnb_nf4"])
def test_twelve_layers_quantized(name):
    quant = quant_config(name)
    model = whisper_small(layers=12)
    assert sum(parameter.numel() for parameter in model.parameters()) == SMALL.params() == 241_734_912
    _, _, evidence, _ = quantize(model, quant)
    reduction = 100 * (1 - evidence.size_bytes / evidence.baseline_bytes)
    assert reduction == pytest.approx(PUBLISHED[name], abs=TOLERANCE)
