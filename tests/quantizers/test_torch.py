"""A layer of torch's dynamic int8 against its own formula, computed here from the fp32 weights."""

import pytest
import torch

LAYER = "model.decoder.layers.1.fc2"


@pytest.fixture
def engine():
    """Sets the engine of this process, and sets it back."""
    before = torch.backends.quantized.engine

    def use(name):
        if name not in torch.backends.quantized.supported_engines:
            pytest.skip(f"this build of torch has no engine {name}")
        torch.backends.quantized.engine = name

    yield use
    torch.backends.quantized.engine = before


def quantize_weight(weight):
    """Symmetric over all 256 codes: int8 and the scale."""
    scale = weight.abs().max().double() / 127.5
    return (weight / scale.float()).round().clamp(-128, 127), scale


def quantize_input(x, levels):
    """Affine uint8 per tensor, zero included: codes minus zero point, and the scale."""
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = (high - low) / (levels - 1)
    zero = round(-low / scale)
    return (x / scale).round().add(zero).clamp(0, levels - 1) - zero, scale


def test_weights_are_symmetric_int8_with_one_scale(quantized):
    result = quantized("torch_int8")
    weight = result.original.get_submodule(LAYER).weight.detach()
    codes, scale = quantize_weight(weight)
    stored = result.model.get_submodule(LAYER).weight()
    assert stored.qscheme() is torch.per_tensor_affine
    assert stored.q_zero_point() == 0
    assert stored.q_scale() == pytest.approx(scale.item(), rel=1e-6)
    # torch multiplies by the reciprocal in fp32: what lies on a rounding boundary may fall either way
    on_boundary = ((weight.double() / stored.q_scale()).frac().abs() - 0.5).abs() < 1e-4
    assert torch.equal(stored.int_repr()[~on_boundary], codes.to(torch.int8)[~on_boundary])
    assert on_boundary.float().mean() < 1e-3
    assert (stored.int_repr() - codes).abs().max() <= 1


# The engines of x86 leave one bit of the activations unused, so that 16-bit sums cannot overflow; qnnpack does not.
@pytest.mark.filterwarnings("ignore:Currently, qnnpack incorrectly ignores reduce_range")
@pytest.mark.parametrize(("name", "levels"), [("x86", 128), ("fbgemm", 128), ("onednn", 128), ("qnnpack", 256)])
def test_output_is_the_formula(name, levels, engine, quantized):
    engine(name)
    result = quantized("torch_int8")
    assert result.receipt.verified
    original = result.original.get_submodule(LAYER)
    x = torch.randn(7, original.in_features, generator=torch.manual_seed(3)) * 2 + 0.3
    weight, weight_scale = quantize_weight(original.weight.detach())
    codes, scale = quantize_input(x, levels)
    expected = (codes.double() @ weight.double().t()) * scale * weight_scale + original.bias.detach().double()
    with torch.no_grad():
        got = result.model.get_submodule(LAYER)(x)
    off = (got - expected).abs()
    assert off.mean() < 1e-5 * expected.abs().mean()
    assert off.max() <= scale * weight_scale * 128  # an activation on a rounding boundary may fall the other way
    assert name in next(item.kernel for item in result.receipt.modules if item.name == LAYER)


def test_per_channel_is_there_too(quantized):
    per_channel, per_tensor = quantized("torch_int8", granularity="per-channel"), quantized("torch_int8")
    assert per_channel.receipt.verified
    out_features = sum(
        module.out_features for module in per_channel.original.modules() if hasattr(module, "in_features")
    )
    more = 16 * out_features - 16 * len(per_channel.names)  # a float64 scale and an int64 zero point each
    assert per_channel.receipt.size_bytes - per_tensor.receipt.size_bytes == more
