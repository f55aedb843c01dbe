"""What tests of quantizers share: the shipped model and what a cell does with it, up to the receipt."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

from quantlab.config.options import names, option
from quantlab.config.schema import QuantConfig
from quantlab.quantization import receipt, registry
from quantlab.quantization.embedding import share
from quantlab.quantization.select import select
from quantlab.records.schema import Receipt

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = names("quant")


@dataclass
class Quantized:
    quant: QuantConfig
    model: nn.Module
    original: nn.Module
    names: tuple[str, ...]
    receipt: Receipt
    calibrations: int  # times that `calibrate` was called


def load_nano():
    return WhisperForConditionalGeneration.from_pretrained(ROOT / "quantlab" / "assets" / "nano").eval()


def quant_config(config, /, **changes):
    """The QuantConfig of a file of conf/quant, with other values for some keys."""
    return QuantConfig.model_validate({**option("quant", config), **changes})


def quantize(model, quant, device="cpu"):
    """Everything a cell does with a model up to the receipt."""
    calibration = OnNoise()
    quantizer = registry.get(quant.library)
    names, skipped = select(model, quant)
    before = receipt.snapshot(model)
    model = quantizer.setup(model, quant, names, torch.device(device), calibration)
    if quant.embedding:
        share(model, quantizer)
    return model, names, receipt.read(before, model, names, skipped, quantizer), calibration.calls


class OnNoise:
    """Calibration on two windows of seeded noise."""

    calls = 0

    def __call__(self, model):
        self.calls += 1
        generate(model)

    def passes(self, block=None):
        yield lambda model: model(
            input_features=noise(model).to(model.device, model.dtype),
            decoder_input_ids=torch.full((2, 8), model.config.decoder_start_token_id, device=model.device),
        )


def generate(model, tokens=6):
    """Token ids (2, ≤ tokens + prompt) for two windows of seeded noise."""
    return model.generate(noise(model).to(model.device), max_new_tokens=tokens, min_new_tokens=tokens)


def noise(model):
    """Features of two windows."""
    config = model.config
    return torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions, generator=torch.manual_seed(0))
