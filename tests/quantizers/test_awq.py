"""AWQ: scales against hand-computed cases and plain rounding, on the shipped model, and through HQQ's layer."""

import re

import pytest
import torch

from helpers.quantizing import OnNoise, load_nano, quant_config
from quantlab.quantization.backends import awq as backend
from quantlab.quantization.rounding import by_block, clipped, fold, hessians, input_scale, nearest, places, scaled
from quantlab.quantization.rounding.awq import EXPONENTS
from quantlab.quantization.rounding.rounded import output_error
from quantlab.quantization.select import select
from quantlab.util.errors import ConfigError


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.manual_seed(seed))


def scaled_error(weight, hessian, scale, quant):
    """Of the outputs, computed from the weights that scaled and rounded ones amount to."""
    rounded = clipped(weight * scale, scaled(hessian, scale), quant).values() / scale
    return torch.trace((rounded - weight) @ hessian @ (rounded - weight).T).item()


def test_scales_of_two_channels_by_hand():
    """RMS 4 and 1 to the power a, divided by √(4ᵃ · 1ᵃ), are 2ᵃ and 2⁻ᵃ; the best a, of all tried one by one."""
    quant = quant_config("awq_int3", bits=2, group_size=4)
    hessian = torch.diag(torch.tensor([16.0, 16.0, 1.0, 1.0]))
    weight = seeded(6, 4)
    tried = {a: torch.tensor([2.0**a, 2.0**a, 2.0**-a, 2.0**-a]) for a in EXPONENTS}
    errors = {a: scaled_error(weight, hessian, scale, quant) for a, scale in tried.items()}
    best = min(errors, key=errors.get)
    assert 0 < best < 1
    torch.testing.assert_close(input_scale([weight], hessian, quant), tried[best])


def test_a_salient_weight_by_hand():
    """Levels −1, 0, 1 for 0.4, 1, −1, where the input of 0.4 has RMS 8: an error of 64 · 0.4² = 10.24 unscaled.

    Scaled by 8^0.45 = 2.549, 0.4 becomes 1.0196, the largest of its group, and is kept exactly; 1 is off by 0.0196, an
    error of 0.00038. Scaled by less it lies inside the range, by more 1 is farther off: 8^0.5 = 2.828 gives 0.0172.
    """
    quant = quant_config("rtn_int2", bits=1.58, group_size=3)
    weight, hessian = torch.tensor([[0.4, 1.0, -1.0]]), torch.diag(torch.tensor([64.0, 1.0, 1.0]))
    assert output_error(nearest(weight, quant), weight, hessian).item() == pytest.approx(10.24)
    scale = input_scale([weight], hessian, quant)
    assert (scale[0] / scale[1]).item() == pytest.approx(8**0.45)
    assert scaled_error(weight, hessian, scale, quant) <= 0.00039


@pytest.mark.parametrize("bits", [4, 3, 2])
@pytest.mark.parametrize("seed", range(5))
def test_its_error_is_never_above_that_of_unscaled_rounding(bits, seed):
    x = seeded(300, 64, seed=seed) * 3 ** seeded(64, seed=seed + 1)
    hessian, quant = x.T @ x / 300, quant_config("awq_int4", bits=bits, group_size=16)
    weights = [seeded(24, 64, seed=seed + 2), seeded(8, 64, seed=seed + 3)]
    scale = input_scale(weights, hessian, quant)
    found = sum(scaled_error(weight, hessian, scale, quant) for weight in weights)
    unscaled = sum(output_error(clipped(weight, hessian, quant), weight, hessian).sum().item() for weight in weights)
    plain = sum(output_error(nearest(weight, quant), weight, hessian).sum().item() for weight in weights)
    assert found <= unscaled * (1 + 1e-5)
    assert unscaled <= plain
    assert scale.max() * scale.min() == pytest.approx(1, rel=1e-5)


def test_a_planted_channel_of_large_activations_loses_most_of_its_error():
    """A hundred times as large as the others: half the error of the same search unscaled, 1/20 of plain rounding's."""
    x = seeded(1000, 128)
    x[:, 5] *= 100
    weight, hessian, quant = seeded(32, 128, seed=1), x.T @ x / 1000, quant_config("awq_int3")
    scale = input_scale([weight], hessian, quant)
    assert scale.argmax() == 5
    found = scaled_error(weight, hessian, scale, quant)
    assert found < 0.5 * output_error(clipped(weight, hessian, quant), weight, hessian).sum()
    assert found < 0.05 * output_error(nearest(weight, quant), weight, hessian).sum()


def test_inputs_that_never_vary_are_scaled_within_bounds():
    quant = quant_config("awq_int3", group_size=16)
    x = seeded(100, 32)
    x[:, :8] = 0
    for hessian in (x.T @ x / 100, torch.zeros(32, 32)):
        scale = input_scale([seeded(4, 32, seed=1)], hessian, quant)
        assert ((scale >= 0.01 * (1 - 1e-5)) & (scale <= 100 * (1 + 1e-5))).all()
    assert torch.equal(scale, torch.ones(32))


def test_the_layer_holds_the_algorithms_codes(quantized):
    """The first block, whose inputs no rounding has changed: its codes, scales and zero points, from the formulas."""
    from hqq.core.quantize import Quantizer

    result = quantized("awq_int3", target="encoder")
    assert result.receipt.verified, result.receipt.problems
    model = load_nano()
    names, _ = select(model, result.quant)
    block = next(by_block(names))
    found = hessians(model, block, OnNoise().passes(block))
    for place in places(block):
        weights = [model.get_submodule(name).weight.detach() for name in place.after]
        scale = input_scale(weights, found[place.after[0]], result.quant)
        fold(model, place, scale)
        found |= {name: scaled(found[name], scale) for name in place.after}
        got = result.model.get_submodule(place.before)
        if place.before.endswith("layer_norm"):
            assert torch.equal(got.weight, model.get_submodule(place.before).weight)
            assert not torch.equal(got.weight, result.original.get_submodule(place.before).weight)
    for name in block.layers:
        packed, linear = result.model.get_submodule(name), model.get_submodule(name)
        expected = clipped(linear.weight.detach(), found[name], result.quant)
        codes = Quantizer.unpack[packed.meta["packing"]](packed.W_q)[: expected.codes.numel() // 64]
        assert torch.equal(codes.float().reshape(expected.codes.shape), expected.codes)
        assert torch.equal(packed.meta["scale"], expected.levels.scale.reshape(-1, 1))
        assert torch.equal(packed.meta["zero"], expected.levels.zero.reshape(-1, 1))
        assert torch.equal(packed.bias, linear.bias) if linear.bias is not None else packed.bias is None


def test_what_is_skipped_and_what_feeds_it_keep_their_values(quantized):
    result = quantized("awq_int3", skip=["*.k_proj", "*.decoder.layers.1.*"])
    assert result.receipt.verified, result.receipt.problems
    after, before = result.model.state_dict(), result.original.state_dict()
    for name in (name for name in before if re.search(r"k_proj|decoder\.layers\.1\.|self_attn_layer_norm", name)):
        assert torch.equal(after[name], before[name]), name
    scaled_here = "model.decoder.layers.0.final_layer_norm.weight"
    assert not torch.equal(after[scaled_here], before[scaled_here])


def test_a_quantized_embedding_is_rounded_too(quantized):
    result = quantized("awq_int4", embedding=True)
    assert result.receipt.verified, result.receipt.problems
    assert "proj_out" in result.names
    assert torch.equal(
        result.model.model.decoder.layer_norm.weight, result.original.model.decoder.layer_norm.weight
    )  # the matrix is the embedding too


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bits": 7}, "no quant.bits=7"),
        ({"bits": None}, "needs quant.bits"),
        ({"group_size": 20}, "multiple of 8"),
        ({"symmetric": True}, "no quant.symmetric=True"),
    ],
)
def test_what_cannot_be_has_a_reason(changes, reason):
    assert reason in (backend.why_unsupported(quant_config("awq_int4", **changes), "cpu") or "")


def test_groups_that_do_not_divide_name_the_module(quantized):
    with pytest.raises(ConfigError, match=r"cannot cut model.encoder.*group_size=40"):
        quantized("awq_int4", group_size=40)
