"""The architecture (a Whisper of transformers' own classes), and its heads for training."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from training.nano.features import MAX_FRAMES, MEL_BINS
from training.nano.tokenizer import SPECIAL_TOKENS

D_MODEL, HEADS = 192, 3  # every Linear reads 192 or 768 features, both multiples of the usual group size 64
ENCODER_LAYERS, DECODER_LAYERS = 6, 2
MAX_TOKENS = 64
CHARACTERS = " abcdefghijklmnopqrstuvwxyz"
CTC_BLANK = len(CHARACTERS)
# Larger than Whisper's 0.02, which left a model this narrow on a plateau in trials; residual branches keep 0.02.
PROJECTION_STD = 0.05


def build(processor: WhisperProcessor) -> WhisperForConditionalGeneration:
    """A model with fresh weights, configured for `generate(language="en", task="transcribe")`."""
    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    special = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    config = WhisperConfig(
        vocab_size=len(processor.tokenizer), num_mel_bins=MEL_BINS, d_model=D_MODEL,
        encoder_layers=ENCODER_LAYERS, encoder_attention_heads=HEADS, encoder_ffn_dim=4 * D_MODEL,
        decoder_layers=DECODER_LAYERS, decoder_attention_heads=HEADS, decoder_ffn_dim=4 * D_MODEL,
        max_source_positions=MAX_FRAMES // 2, max_target_positions=MAX_TOKENS, dropout=0.0,
        suppress_tokens=None, begin_suppress_tokens=None, **special,
    )  # fmt: skip
    # For training on a CPU: at 300 frames bf16 products are several times as fast as the fused kernel's backward.
    config._attn_implementation = "eager"
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        max_length=MAX_TOKENS, language="en", task="transcribe", is_multilingual=True, return_timestamps=False,
        lang_to_id={"<|en|>": ids["<|en|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"], prev_sot_token_id=ids["<|startofprev|>"],
        suppress_tokens=sorted(ids[token] for token in SPECIAL_TOKENS if token != "<|endoftext|>"),
        begin_suppress_tokens=[end], **special,
    )  # fmt: skip
    _initialize(model)
    return model


@torch.no_grad()
def _initialize(model: WhisperForConditionalGeneration) -> None:
    for convolution in (model.model.encoder.conv1, model.model.encoder.conv2):
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    for name, parameter in layer_matrices(model):
        if not name.endswith(("out_proj.weight", "fc2.weight")):
            nn.init.normal_(parameter, std=PROJECTION_STD)


def layer_matrices(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The weight matrices inside encoder and decoder layers, with their names: what Muon trains."""
    return [(name, p) for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]


class Heads(nn.Module):
    """Two character heads on the encoder, used in training only.

    `ctc` scores the characters and a blank; `flat` the characters as if they were spread evenly over the utterance,
    which gives the encoder something to learn before the CTC alignment exists ("flat start").
    """

    def __init__(self) -> None:
        super().__init__()
        self.ctc = nn.Linear(D_MODEL, len(CHARACTERS) + 1)
        self.flat = nn.Linear(D_MODEL, len(CHARACTERS))


def encode(model: WhisperForConditionalGeneration, features: Tensor) -> Tensor:
    """Whisper's encoder on fewer frames than its window.

    Args:
        model: its weights and layers.
        features: (batch, 80, frames), frames even and at most 600.

    Returns:
        (batch, frames / 2, d_model). With all 600 frames it equals `model.model.encoder(features)`.
    """
    encoder = model.model.encoder
    hidden = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(features)))).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return encoder.layer_norm(hidden)
