"""torchao by its own tensors, and against arithmetic that owes nothing to it."""

import pytest
import torch
from conftest import generate, load_nano, quant_config, quantize

from quantlab import quantizers
from quantlab.config import ConfigError

LINEAR = "model.encoder.layers.0.fc1"


@pytest.mark.parametrize("name", ["torchao_int8wo", "torchao_int8dq", "torchao_intx"])
def test_quantizes_what_it_says(name, quantized):
    result = quantized(name)
    evidence = result.receipt
    assert evidence.verified, evidence.problems
    assert evidence.modules_quantized == len(result.names)
    weights = sum(result.original.get_submodule(item).weight.numel() for item in result.names)
    assert evidence.bytes_by_dtype["int8"] >= weights  # each weight a byte, and zero points
    assert evidence.bytes_by_dtype["int8"] < 1.1 * weights
    kernels = {item.kernel for item in evidence.modules if item.quantized}
    assert kernels == {
        {
            "torchao_int8wo": "torchao Int8Tensor: dequantize, matmul",
            "torchao_int8dq": "torchao Int8Tensor: int8 × int8",
            "torchao_intx": "torchao IntxUnpackedToInt8Tensor of int4 levels: dequantize, matmul",
        }[name]
    }
    assert generate(result.model).shape[0] == 2


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [None, 32])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_intx_rounds_to_as_many_levels_as_there_are_bits(bits, group_size, symmetric, quantized):
    granularity = "per-channel" if group_size is None else "per-group"
    changes = {"bits": bits, "granularity": granularity, "group_size": group_size, "symmetric": symmetric}
    result = quantized("torchao_intx", **changes)
    assert result.receipt.verified, result.receipt.problems
    original = result.original.get_submodule(LINEAR).weight.detach()
    groups = original.reshape(len(original), -1, group_size or original.shape[1])
    rounded = result.model.get_submodule(LINEAR).weight.dequantize().reshape(groups.shape)
    assert max(len(group.unique()) for row in rounded[:8] for group in row) <= 2**bits
    if symmetric:
        step = groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 0.5)
    else:
        step = (groups.amax(-1, keepdim=True).clamp(min=0) - groups.amin(-1, keepdim=True).clamp(max=0)) / (2**bits - 1)
    assert ((rounded - groups).abs() <= step * (0.51 if bits > 2 or not symmetric else 1.01)).all()


def test_the_head_unties_from_the_embedding(quantized):
    sizes = {head: quantized("torchao_int8wo", head=head).receipt.size_bytes for head in (True, False)}
    assert sizes[True] > sizes[False]


def test_what_torchao_would_skip_is_an_error():
    with pytest.raises(ConfigError, match=r"192 inputs of .* whole groups of quant.group_size=50"):
        quantize(load_nano(), quant_config("torchao_intx", group_size=50))


@pytest.mark.parametrize(
    ("name", "changes", "device", "reason"),
    [
        ("torchao_int4wo", {}, "cpu", "no kernel for quant.format=int4 on cpu"),
        ("torchao_fp8dq", {}, "cpu", "no kernel for quant.format=float8_e4m3fn on cpu"),
        ("torchao_int8wo", {}, "mps", "no kernel for quant.format=int8 on mps"),
        ("torchao_intx", {"bits": 9}, "cpu", "torchao's intx has no quant.bits=9"),
        ("torchao_intx", {"group_size": None}, "cpu", "need quant.group_size"),
        ("torchao_intx", {"granularity": "per-channel"}, "cpu", "quant.group_size=32 needs"),
        ("torchao_int8wo", {"symmetric": False}, "cpu", "no quant.symmetric=False"),
        ("torchao_int8wo", {"scheme": "static"}, "cpu", "no quant.scheme=static"),
    ],
)
def test_refusals(name, changes, device, reason):
    quant = quant_config(name, **changes)
    assert reason in (quantizers.get("torchao").why_unsupported(quant, device) or "")


@pytest.mark.parametrize("name", ["torchao_int4wo", "torchao_fp8wo", "torchao_fp8dq"])
def test_what_is_for_cuda_is_not_refused_there(name):
    assert quantizers.get("torchao").why_unsupported(quant_config(name), "cuda") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("name", "changes"), [("torchao_int4wo", {"group_size": 64}), ("torchao_fp8wo", {}), ("torchao_fp8dq", {})]
)
def test_on_cuda(name, changes):
    model, names, evidence, _ = quantize(load_nano(), quant_config(name, **changes), device="cuda")
    assert evidence.verified, evidence.problems
    assert evidence.modules_quantized == len(names)
    assert torch.is_tensor(generate(model))
