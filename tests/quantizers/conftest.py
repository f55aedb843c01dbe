"""The shipped model, quantized by the real libraries."""

import pytest
import torch

from helpers.quantizing import Quantized, load_nano, quant_config, quantize


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
