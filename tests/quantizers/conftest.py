"""The shipped model, quantized by the real libraries."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from transformers import WhisperForConditionalGeneration

from quantlab import quantizers, receipt
from quantlab.config import QuantConfig
from quantlab.record import Receipt

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "conf" / "quant").glob("*.yaml"))


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
    raw = yaml.safe_load((ROOT / "conf" / "quant" / f"{config}.yaml").read_text())
    return QuantConfig.model_validate(raw | changes)


def quantize(model, quant, device="cpu"):
    """Everything a cell does with a model up to the receipt."""
    calls = []

    def calibrate(half_quantized):
        calls.append(generate(half_quantized))

    quantizer = quantizers.get(quant.library)
    names, skipped = quantizers.select(model, quant)
    before = receipt.snapshot(model)
    model = quantizer.setup(model, quant, names, torch.device(device), calibrate)
    return model, names, receipt.read(before, model, names, skipped, quantizer), len(calls)


def generate(model, tokens=6):
    """Token ids (2, ≤ tokens + prompt) for two windows of seeded noise."""
    config = model.config
    mel = torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions, generator=torch.manual_seed(0))
    return model.generate(mel.to(model.device), max_new_tokens=tokens, min_new_tokens=tokens)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small products gain nothing from a second thread, and lose much where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def nano():
    """Left as it is by every test."""
    return load_nano()


@pytest.fixture
def quantized(nano):
    """Quantizes a fresh copy of the shipped model: `quantized("hqq_int4", group_size=32)`."""

    def run(config, /, device="cpu", **changes):
        quant = quant_config(config, **changes)
        model, names, evidence, calibrations = quantize(load_nano(), quant, device)
        return Quantized(quant, model, nano, names, evidence, calibrations)

    return run
