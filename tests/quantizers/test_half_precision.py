"""Models in half precision: which libraries quantize them, and what the receipt makes of what stays unquantized."""

import copy

import pytest
import torch

from helpers.quantizing import load_nano, quant_config
from quantlab.config.compose import compose
from quantlab.grid.plan import plan
from quantlab.quantization import receipt, registry
from quantlab.quantization.select import select

CPU = torch.device("cpu")
HALVES = ("float16", "bfloat16")
# one of each kind of weight; which others work was found out by hand, see docs/reference/runtimes.md
KINDS = (
    "quanto_int8 quanto_int4 quanto_fp8 quanto_int8_static hqq_int4 bnb_int8 bnb_nf4 "
    "torchao_int8wo torchao_int8dq torchao_intx"
).split()


def logits(model, dtype):
    config = model.config
    mel = torch.randn(1, config.num_mel_bins, 2 * config.max_source_positions, generator=torch.manual_seed(1))
    ids = torch.full((1, 1), config.decoder_start_token_id)
    with torch.no_grad():
        return model(mel.to(dtype), decoder_input_ids=ids).logits


def quantized_in(dtype, name):
    """A model in half precision, quantized, its receipt, and how it was quantized."""
    model, quant = load_nano().to(getattr(torch, dtype)), quant_config(name)
    quantizer = registry.get(quant.library)
    names, skipped = select(model, quant)
    before = receipt.snapshot(model)
    calibrate = lambda half_quantized: logits(half_quantized, getattr(torch, dtype))  # noqa: E731
    model = quantizer.setup(model, quant, names, CPU, calibrate)
    return model, receipt.read(before, model, names, skipped, quantizer, dtype), quant


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", KINDS)
def test_a_library_quantizes_a_model_in_half_precision(name, dtype):
    model, evidence, quant = quantized_in(dtype, name)
    assert evidence.verified, evidence.problems
    assert evidence.modules_quantized >= 56  # all but the head, at least
    head = next(item for item in evidence.modules if item.name == "proj_out")
    assert quant.head or head.dtypes == {"weight": dtype}
    if quant.library == "hqq":  # its scales too
        assert set(evidence.bytes_by_dtype) == {dtype, "uint8"}
    assert evidence.size_bytes < evidence.baseline_bytes / 2  # smaller than the unquantized model in half precision
    got = logits(model, getattr(torch, dtype))
    assert got.dtype == getattr(torch, dtype)
    expected = logits(load_nano(), torch.float32)
    assert (got.float() - expected).norm() / expected.norm() < (0.15 if quant.bits == 8 else 0.5)


@pytest.fixture(scope="module")
def in_bfloat16():
    return load_nano().to(torch.bfloat16)


@pytest.fixture
def read(in_bfloat16):
    """The receipt of an unquantized model as it is when asked; `model` may be changed before."""
    none = registry.get("none")
    model = copy.deepcopy(in_bfloat16)
    names, skipped = select(model, quant_config("none"))

    def of(dtype="bfloat16"):
        return receipt.read(receipt.snapshot(model), model, names, skipped, none, dtype)

    of.model = model
    return of


def test_an_unquantized_model_in_half_precision_is_half_as_large(read):
    evidence = read()
    assert evidence.verified
    assert evidence.bytes_by_dtype == {"bfloat16": evidence.baseline_bytes // 2}
    assert evidence.size_bytes == 2 * evidence.params


def test_what_was_left_in_another_type_is_named(read):
    read.model.model.encoder.layer_norm.float()
    read.model.model.decoder.layers[1].fc2.bias.data = read.model.model.decoder.layers[1].fc2.bias.data.half()
    read.model.model.steps = torch.zeros(3, dtype=torch.int64)  # no floating-point number
    found = read()
    assert not found.verified
    assert found.problems == (
        "model.encoder.layer_norm.weight is float32 although runtime.dtype=bfloat16",
        "model.encoder.layer_norm.bias is float32 although runtime.dtype=bfloat16",
        "model.decoder.layers.1.fc2.bias is float16 although runtime.dtype=bfloat16",
    )


def test_a_model_that_was_never_cast_is_named_tensor_by_tensor(read):
    assert len(read("float16").problems) == len(list(read.model.parameters())) + 1  # proj_out is the embedding again


def planned(*quants):
    """The cells of these quantizers, in each half precision."""
    return plan(compose(["-m", f"quant={','.join(quants)}", f"runtime.dtype={','.join(HALVES)}", "device=cpu"]))


def test_what_knows_no_half_precision_is_unsupported():
    reasons = {
        "torch": "torch computes in fp32 only: set runtime.dtype=float32, not ",
        "ggml": "ggml chooses its own types: set runtime.dtype=float32, not ",
        "ct2": "ct2 chooses its own types: set runtime.dtype=float32, not ",
    }
    quants = ("torch_int8", "torch_int8_per_channel", "ggml_f16", "ggml_q5_0", "ct2_int8", "ct2_float32")
    cells = planned(*quants)
    assert len(cells) == 2 * len(quants)
    for cell in cells:
        assert cell.refusal.status == "unsupported"
        assert cell.refusal.reason == reasons[cell.config.quant.library] + cell.config.runtime.dtype


def test_everything_else_is_planned_in_half_precision():
    quants = ["none", "quanto_int8", "hqq_int4", "bnb_nf4", "torchao_int8wo"]
    cells = planned(*quants)
    assert [cell.refusal for cell in cells] == [None] * 2 * len(quants)
    labels = {cell.config.label for cell in cells}
    assert {"nano-none-cpu-float16", "nano-none-cpu-bfloat16", "nano-hqq_int4-cpu-bfloat16"} < labels
