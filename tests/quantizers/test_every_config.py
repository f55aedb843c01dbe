"""Every file of conf/quant on the shipped model, by the library itself."""

import pytest
import torch

from helpers.arithmetic import Shape, size_bytes
from helpers.quantizing import CONFIGS, generate
from quantlab.config.options import option
from quantlab.config.schema import QuantConfig
from quantlab.quantization import registry

EXPECTED = (
    "none torch_int8 quanto_int8 quanto_int4 quanto_int2 quanto_fp8 quanto_int8_static quanto_int8_fp8_static "
    "hqq_int8 hqq_int4 hqq_int3 hqq_int2 hqq_ternary hqq_int1 bnb_int8 bnb_nf4 bnb_nf4_dq bnb_fp4 "
    "rtn_int8 rtn_int4 rtn_int3 rtn_int2 gptq_int4 gptq_int3 gptq_int2 awq_int4 awq_int3 smoothquant_int8"
).split()

CUDA_ONLY = {"ct2_bfloat16", "ct2_int8_float16", "torchao_fp8wo", "torchao_fp8dq"}


def test_the_names_that_are_public_interface():
    assert set(EXPECTED) <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_yaml_names_every_key_so_that_hydra_can_override_it(name):
    raw = option("quant", name)
    assert set(raw) == set(QuantConfig.model_fields)
    quant = QuantConfig.model_validate(raw)
    assert quant.name == name
    device = "cuda" if name in CUDA_ONLY else "cpu"
    assert registry.get(quant.library).why_unsupported(quant, device) is None


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "none"])
def test_quantizes_what_it_says(name, quantized):
    result = quantized(name)
    evidence = result.receipt
    assert evidence.verified, evidence.problems
    assert evidence.modules_quantized == len(result.names)
    assert evidence.modules_total == len(result.names) + (0 if result.quant.head else 1)
    assert result.calibrations == (1 if result.quant.scheme == "static" else 0)
    shape = Shape.of(result.model.config)
    assert evidence.params == shape.params()
    assert evidence.baseline_bytes == 4 * shape.params()
    assert evidence.size_bytes == size_bytes(name, shape, result.quant.head)
    assert all(item.kernel for item in evidence.modules if item.quantized)
    assert generate(result.model).shape[0] == 2


def test_none_changes_nothing(quantized):
    result = quantized("none")
    assert result.receipt.verified
    assert result.receipt.modules_quantized == 0
    assert result.receipt.size_bytes == result.receipt.baseline_bytes == 4 * Shape.of(result.model.config).params()
    assert torch.equal(generate(result.model), generate(result.original))


@pytest.mark.parametrize("name", ["torch_int8", "quanto_int8", "quanto_fp8", "hqq_int8", "bnb_int8"])
def test_eight_bits_leave_the_decoder_nearly_as_it_was(name, quantized):
    result = quantized(name)
    config = result.model.config
    frames = 2 * config.max_source_positions
    mel = torch.randn(2, config.num_mel_bins, frames, generator=torch.manual_seed(1))
    ids = torch.full((2, 1), config.decoder_start_token_id)
    with torch.no_grad():
        got, expected = (model(mel, decoder_input_ids=ids).logits for model in (result.model, result.original))
    assert (got - expected).norm() / expected.norm() < 0.1


@pytest.mark.parametrize("name", ["torch_int8", "quanto_int4", "quanto_int8_static", "hqq_int3", "bnb_int8", "bnb_nf4"])
@pytest.mark.parametrize("target", ["encoder", "decoder"])
def test_target(name, target, quantized):
    result = quantized(name, target=target)
    evidence = result.receipt
    assert evidence.verified, evidence.problems
    config = result.model.config
    modules = {"encoder": 6 * config.encoder_layers, "decoder": 10 * config.decoder_layers}[target]
    assert len(result.names) == modules + (1 if target == "decoder" and result.quant.head else 0)
    for item in evidence.modules:
        assert item.quantized == (item.name in result.names)
        if not item.quantized:
            assert item.class_after == "Linear"
            assert item.skipped in (f"quant.target={target}", "quant.head=false")
    generate(result.model)


@pytest.mark.parametrize("name", ["torch_int8", "quanto_int8", "quanto_int8_static", "hqq_int4", "bnb_int8", "bnb_nf4"])
def test_skip(name, quantized):
    result = quantized(name, skip=["*.k_proj", "model.encoder.layers.0.*"])
    evidence = result.receipt
    assert evidence.verified, evidence.problems
    left = {item.name for item in evidence.modules if not item.quantized}
    kept = {item for item in left if item.endswith("k_proj") or item.startswith("model.encoder.layers.0.")}
    assert left - kept == (set() if result.quant.head else {"proj_out"})
    config = result.model.config
    assert len(kept) == config.encoder_layers + 2 * config.decoder_layers + 5  # one k_proj is in both
    generate(result.model)


@pytest.mark.parametrize("name", ["torch_int8", "quanto_int8", "hqq_int4", "bnb_nf4", "bnb_int8"])
def test_the_head_unties_from_the_embedding_which_stays(name, quantized):
    sizes = {}
    for head in (True, False):
        result = quantized(name, head=head)
        assert result.receipt.verified, result.receipt.problems
        assert ("proj_out" in result.names) == head
        assert torch.equal(result.model.model.decoder.embed_tokens.weight, result.original.proj_out.weight)
        sizes[head] = result.receipt.size_bytes
        generate(result.model)
    assert sizes[True] > sizes[False]


@pytest.mark.parametrize("group_size", [16, 32])
@pytest.mark.parametrize("name", ["hqq_int4", "hqq_int3", "hqq_ternary", "hqq_int1"])
def test_group_size_is_a_key_of_hqq(name, group_size, quantized):
    result, usual = quantized(name, group_size=group_size), quantized(name)
    assert result.receipt.verified
    weights = sum(o * i for o, i, _ in Shape.of(result.model.config).linears())
    more = 8 * weights // group_size - 8 * weights // 64
    assert result.receipt.size_bytes - usual.receipt.size_bytes == pytest.approx(more, rel=0.01)  # 3 bit pads


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in ("torch_int8", "smoothquant_int8")])
def test_quantizes_on_cuda(name, quantized):
    result = quantized(name, device="cuda")
    assert result.receipt.verified, result.receipt.problems
    assert {tensor.device.type for tensor in result.model.parameters()} == {"cuda"}
    if name != "none":
        shape = Shape.of(result.model.config)
        assert result.receipt.size_bytes == size_bytes(name, shape, result.quant.head)
    assert generate(result.model).shape[0] == 2
