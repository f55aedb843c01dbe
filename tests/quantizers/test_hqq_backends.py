"""HQQ's kernels: what cannot be is refused, and a fall-back that the library only prints is an error."""

import pytest
import torch
from torch import nn

from helpers.quantizing import generate, load_nano, quant_config, quantize
from quantlab.quantization import hqq_layer
from quantlab.quantization.backends import hqq
from quantlab.quantization.casting import compute_in
from quantlab.util.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "device", "reason"),
    [
        ({"backend": "aten"}, "cpu", "has kernels for CUDA only, not for cpu"),
        ({"backend": "gemlite"}, "mps", "has kernels for CUDA only, not for mps"),
        ({"backend": "aten"}, "cuda", "HQQ's backend aten has no quant.axis=1; it has 0"),
        ({"backend": "torchao_int4", "bits": 3}, "cuda", "HQQ's backend torchao_int4 has no quant.bits=3.0; it has 4"),
        ({"backend": "torchao_int4", "axis": 0}, "cuda", "has no quant.axis=0; it has 1"),
        ({"backend": "torchao_int4", "group_size": 16}, "cuda", "has no quant.group_size=16; it has 32, 64, 128, 256"),
        ({"backend": "gemlite", "bits": 3}, "cuda", "HQQ's backend gemlite has no quant.bits=3.0; it has 8, 4, 2, 1"),
        ({"backend": "marlin"}, "cuda", "would convert none of them"),
        (
            {"backend": "aten", "axis": 0},
            "cuda",
            "hqq_aten is not installed: build it from hqq/kernels in HQQ's sources",
        ),
    ],
)
def test_what_cannot_be_has_a_reason(changes, device, reason):
    assert reason in (hqq.why_unsupported(quant_config("hqq_int4", **changes), device) or "")


@pytest.mark.parametrize("changes", [{"backend": "torchao_int4"}, {"backend": "pytorch"}, {"axis": 0}])
def test_what_can_be_on_cuda_is_not_refused(changes):
    assert hqq.why_unsupported(quant_config("hqq_int4", **changes), "cuda") is None


def test_the_backend_that_ran_is_in_the_receipt():
    model, names, evidence, _ = quantize(load_nano(), quant_config("hqq_int4", backend="pytorch"))
    assert evidence.verified, evidence.problems
    assert {item.kernel for item in evidence.modules if item.quantized} == {"HQQ PYTORCH: dequantize, matmul"}
    assert sum(item.quantized for item in evidence.modules) == len(names)
    assert generate(model).shape[0] == 2


def test_a_conversion_that_the_library_skips_is_an_error(capsys):
    """Eight bits are more than its int4 kernel takes: it prints a line and returns the layer it was given."""
    model = nn.Sequential(nn.Linear(128, 8))
    with pytest.raises(ConfigError, match=r"HQQ kept its own kernels for 0 although quant.backend=torchao_int4"):
        hqq.setup(model, quant_config("hqq_int8", backend="torchao_int4"), ("0",), CPU, print)
    assert "Skipping aoint4 conversion" in capsys.readouterr().out


def test_an_extension_that_is_not_there_is_an_error():
    """`set_backend` prints a line and keeps what it has."""
    model = nn.Sequential(nn.Linear(64, 64))
    with pytest.raises(ConfigError, match="cannot import its extension hqq_aten"):
        hqq.setup(model, quant_config("hqq_int4", backend="aten", axis=0), ("0",), CPU, print)


@pytest.mark.parametrize(("backend", "multiples"), [("torchao_int4", "8×128"), ("gemlite", "32×32")])
def test_a_shape_that_the_kernels_cannot_multiply_names_the_module(backend, multiples):
    model = nn.Sequential(nn.Linear(64, 40))
    with pytest.raises(ConfigError, match=rf"multiplies by multiples of {multiples}, 0 is 40×64"):
        hqq.setup(model, quant_config("hqq_int4", backend=backend), ("0",), CPU, print)


def test_why_marlin_is_refused_holds_for_the_installed_version():
    """Its conversion takes `group_size is None` alone (hqq/backends/marlin.py)."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    how = BaseQuantizeConfig(nbits=4, group_size=None, axis=1)
    layer = HQQLinear(nn.Linear(128, 128), how, compute_dtype=torch.float32, device="cpu")
    assert layer.meta["group_size"] == 128


def test_codes_for_the_int4_kernel_are_two_to_a_byte():
    """HQQ itself leaves them in int32 with torch 2.10 and later, which the kernel refuses."""
    from hqq.backends.torchao import HQQLinearTorchWeightOnlynt4 as Layer

    codes = torch.arange(16).repeat(2, 16).reshape(-1, 64).float()  # two rows of 256, groups of 64
    layer = Layer(
        None, {"weight_quant_params": {"group_size": 64, "nbits": 4, "axis": 1}}, device="cpu", initialize=False
    )
    groups = torch.ones(8, 1)
    with hqq.two_codes_a_byte():
        packed, scales, _ = layer.hqq_quants_to_torch_quants(codes, groups, 8 * groups, (2, 256))
    assert packed.dtype == torch.uint8
    assert packed.shape == (2, 128)
    assert packed[0, :8].tolist() == [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]
    assert scales.shape == (2, 4)


def test_a_module_computes_in_another_type_than_the_model_around_it():
    linear, x = nn.Linear(8, 4).to(torch.bfloat16), torch.randn(2, 8)
    with torch.no_grad():
        expected = linear(x.to(torch.bfloat16)).float()
        compute_in(linear, torch.bfloat16, torch.float32)
        got = linear(x)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("backend", "bits"), [("torchao_int4", 4), ("gemlite", 4), ("gemlite", 2), ("aten", 4)])
def test_backends_on_cuda(backend, bits):
    quant = quant_config("hqq_int4", bits=bits, backend=backend, axis=0 if backend == "aten" else 1)
    if reason := hqq.why_unsupported(quant, "cuda"):
        pytest.skip(reason)
    model, x = nn.Sequential(nn.Linear(256, 256)).eval(), torch.randn(2, 256, device="cuda")
    expected = model.to("cuda")(x)
    got = hqq.setup(model, quant, ("0",), torch.device("cuda"), print)(x)
    assert backend in str(hqq_layer.kernel(model[0])).lower()
    assert hqq_layer.is_quantized(model[0])
    assert (got - expected).norm() / expected.norm() < (0.15 if bits == 4 else 0.6)
