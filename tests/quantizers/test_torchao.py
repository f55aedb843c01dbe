"""torchao by its own tensors, and against arithmetic that owes nothing to it."""

import pytest
import torch

from helpers.quantizing import generate, load_nano, quant_config, quantize
from quantlab.quantization import registry
from quantlab.util.errors import ConfigError

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
            "torchao_intx": "torchao IntxUnpackedToInt8Tensor, levels of int4: dequantize, matmul",
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


@pytest.mark.parametrize(("name", "group_size"), [("torchao_intx", 50), ("torchao_int4wo", 128)])
def test_what_torchao_would_skip_is_an_error(name, group_size):
    with pytest.raises(ConfigError, match=rf"192 inputs of .* whole groups of quant.group_size={group_size}"):
        quantize(load_nano(), quant_config(name, group_size=group_size))


def test_what_torchao_skipped_is_no_verified_receipt(monkeypatch):
    """Should a condition of the library's be missed that ours does not know."""
    from quantlab.quantization.backends import torchao

    monkeypatch.setattr(torchao, "_check", lambda *arguments: None)
    _, names, evidence, _ = quantize(load_nano(), quant_config("torchao_int4wo", group_size=128))
    assert not evidence.verified
    inner = [item for item in names if not item.endswith(".fc2")]  # 768 inputs are whole groups, 192 are not
    assert [text.partition(" ")[0] for text in evidence.problems] == inner


@pytest.mark.parametrize("head", [False, True])
def test_int4_on_the_cpu_is_half_a_byte_with_a_scale_and_a_zero_point_in_each_group(head, quantized):
    result = quantized("torchao_int4wo", head=head)
    assert result.receipt.verified, result.receipt.problems
    weights = sum(result.original.get_submodule(name).weight.numel() for name in result.names)
    left = result.receipt.params - weights + (result.original.proj_out.weight.numel() if head else 0)
    assert result.receipt.bytes_by_dtype == {"uint8": weights // 2, "float32": 4 * left + 2 * 4 * weights // 64}
    kernel = "torchao Int4OpaqueTensor: aten::_weight_int4pack_mm_for_cpu"
    assert {item.kernel for item in result.receipt.modules if item.quantized} == {kernel}
    x = torch.randn(3, 192, generator=torch.manual_seed(0))
    with torch.no_grad():
        got, expected = (model.get_submodule(LINEAR)(x) for model in (result.model, result.original))
    assert (got - expected).norm() / expected.norm() < 0.15
    assert generate(result.model).shape[0] == 2


@pytest.mark.parametrize(
    ("name", "changes", "device", "reason"),
    [
        ("torchao_int4wo", {}, "mps", "no kernel for quant.format=int4 on mps"),
        ("torchao_int4wo", {"group_size": 256}, "cpu", "torchao's int4 on cpu has no quant.group_size=256"),
        ("torchao_int4wo", {"group_size": 48}, "cuda", "torchao's int4 on cuda has no quant.group_size=48"),
        ("torchao_fp8dq", {}, "cpu", "no kernel for quant.format=float8_e4m3fn on cpu"),
        ("torchao_int8wo", {}, "mps", "no kernel for quant.format=int8 on mps"),
        ("torchao_intx", {"bits": 9}, "cpu", "torchao's intx has no quant.bits=9"),
        ("torchao_intx", {"group_size": None}, "cpu", "need quant.group_size"),
        ("torchao_intx", {"granularity": "per-tensor"}, "cpu", "no quant.granularity=per-tensor"),
        ("torchao_intx", {"bits": 1}, "cpu", "rounds every weight to 0"),
        ("torchao_fp8dq", {"granularity": "per-channel"}, "cuda", "no quant.granularity=per-channel"),
        ("torchao_int8wo", {"symmetric": False}, "cpu", "no quant.symmetric=False"),
        ("torchao_int8wo", {"scheme": "static"}, "cpu", "no quant.scheme=static"),
    ],
)
def test_refusals(name, changes, device, reason):
    quant = quant_config(name, **changes)
    assert reason in (registry.get("torchao").why_unsupported(quant, device) or "")


@pytest.mark.parametrize("name", ["torchao_int4wo", "torchao_fp8wo", "torchao_fp8dq"])
def test_what_is_for_cuda_is_not_refused_there(name):
    assert registry.get("torchao").why_unsupported(quant_config(name), "cuda") is None


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
