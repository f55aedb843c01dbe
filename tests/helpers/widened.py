"""The shipped model four times as wide, computing the same: rows of 768, as ggml's blocks of 256 want them.

Every feature is there four times. Mean and variance of a LayerNorm stay what they are, a product over the inputs is
divided by four, each head of attention is repeated; only rounding differs (as in Net2Wider, arXiv 1511.05641, with
every unit copied). It is a trained model, so that an error rate can be told; four copies of a weight are rounded
in different blocks, so that a model trained at this width would lose more.

    python tests/helpers/widened.py FOLDER     (a checkpoint for model.path=FOLDER)
"""

import sys
from pathlib import Path

from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

NANO = Path(__file__).resolve().parents[2] / "quantlab" / "assets" / "nano"
COPIES = 4


def widened():
    """In fp32, on the CPU, in evaluation mode."""
    nano = WhisperForConditionalGeneration.from_pretrained(NANO)
    wide = {key: COPIES * getattr(nano.config, key) for key in (
        "d_model", "encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim",
    )}  # fmt: skip
    config = WhisperConfig.from_dict(nano.config.to_dict() | wide)
    model = WhisperForConditionalGeneration(config)
    state = {name: _wider(name, value) for name, value in nano.state_dict().items()}
    model.load_state_dict(state)
    model.tie_weights()
    model.generation_config = nano.generation_config
    return model.eval()


def _wider(name, value):
    if "embed_" in name or name == "proj_out.weight":
        return value.repeat(1, COPIES)
    if name.startswith("model.decoder.layer_norm"):
        return value.repeat(COPIES) / COPIES  # what follows is the product with the embedding, which is not divided
    if value.ndim == 1:
        return value.repeat(COPIES)
    if name == "model.encoder.conv1.weight":
        return value.repeat(COPIES, 1, 1)  # its inputs are mel bins
    return value.repeat(COPIES, COPIES, *[1] * (value.ndim - 2)) / COPIES


def save(folder):
    """A checkpoint in the layout of transformers."""
    widened().save_pretrained(folder)
    WhisperProcessor.from_pretrained(NANO).save_pretrained(folder)


if __name__ == "__main__":
    save(sys.argv[1])
