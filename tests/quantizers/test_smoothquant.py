"""SmoothQuant: scales against the paper's formula, and what they do for torch's dynamic int8."""

import copy

import pytest
import torch

from helpers.quantizing import OnNoise, load_nano, noise, quant_config
from quantlab.quantization.backends import smoothquant
from quantlab.quantization.backends import torch as dynamic_int8
from quantlab.quantization.rounding import by_block, fold, maxima, places, smoothing_scale
from quantlab.quantization.select import select

CPU = torch.device("cpu")


def all_places(model, quant):
    names, _ = select(model, quant)
    return [place for block in by_block(names) for place in places(block)]


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [
        (0.5, (4 / 1, 1 / 2)),  # √16 / √1 and √1 / √4, of the largest weight in either matrix
        (1.0, (16, 1)),
        (0.0, (1 / 1, 1 / 4)),
    ],
)
def test_two_channels_by_hand(smoothing, expected):
    weights = [torch.tensor([[1.0, -4.0], [0.5, 2.0]]), torch.tensor([[-1.0, 3.0]])]
    found = smoothing_scale(weights, torch.tensor([16.0, 1.0]), smoothing)
    torch.testing.assert_close(found[0] / found[1], torch.tensor(expected[0] / expected[1]))
    assert found.prod() == pytest.approx(1)


def test_what_is_always_zero_is_not_scaled():
    weights = [torch.tensor([[1.0, 2.0, 0.0, 4.0]])]
    found = smoothing_scale(weights, torch.tensor([4.0, 0.0, 3.0, 1.0]), 0.5)
    assert found[1] == found[2] == 1
    torch.testing.assert_close(found[[0, 3]], torch.tensor([2.0, 0.5]))  # 2 and 1/2 have a geometric mean of 1
    assert torch.equal(smoothing_scale(weights, torch.zeros(4), 0.5), torch.ones(4))


def test_the_statistic_is_the_largest_magnitude_of_all_inputs():
    model, seen = load_nano(), {}
    names = ["model.encoder.layers.0.fc1", "model.decoder.layers.1.self_attn.out_proj"]
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0])
        )
    found = maxima(model, names, [*OnNoise().passes(), lambda one: one(noise(one) * 2, decoder_input_ids=TOKENS)])
    for name in names:
        assert len(seen[name]) == 2
        assert torch.equal(found[name], torch.cat([item.flatten(0, -2) for item in seen[name]]).abs().amax(0))


TOKENS = torch.arange(8).view(1, 8).expand(2, 8)


def test_the_layers_are_torchs_own_of_the_scaled_model(quantized):
    result = quantized("smoothquant_int8")
    assert result.receipt.verified, result.receipt.problems
    model = load_nano()
    found = all_places(model, result.quant)
    largest = maxima(model, [name for place in found for name in place.after], OnNoise().passes())
    for place in found:
        inputs = largest[place.after[0]]
        assert all(torch.equal(largest[name], inputs) for name in place.after)
        weights = torch.cat([model.get_submodule(name).weight.detach() for name in place.after])
        scale = (inputs / weights.abs().amax(0)).sqrt()  # equation 4 for an exponent of one half
        fold(model, place, scale / scale.log().mean().exp())
    model = dynamic_int8.setup(model, quant_config("torch_int8_per_channel"), result.names, CPU, None)
    for name in result.names:
        got, expected = (one.get_submodule(name).weight() for one in (result.model, model))
        torch.testing.assert_close(got.q_per_channel_scales(), expected.q_per_channel_scales(), rtol=1e-4, atol=0)
        apart = (got.int_repr().int() - expected.int_repr().int()).abs()
        assert apart.max() <= 1  # on the boundary between two codes
        assert apart.float().mean() < 1e-3


def test_planted_channels_of_large_activations_lose_most_of_their_error():
    """A channel made 100 times as large in every place, and its weights as small: the same model, and SmoothQuant finds
    its way back, while torch's one scale for all activations loses the others: less than a tenth of its squared error.
    """
    planted, quant = load_nano(), quant_config("smoothquant_int8")
    for place in all_places(planted, quant):
        scale = torch.ones(planted.get_submodule(place.after[0]).in_features)
        scale[7] = 1 / 100
        fold(planted, place, scale)
    errors = {}
    for library, option in ((smoothquant, quant), (dynamic_int8, quant_config("torch_int8_per_channel"))):
        model = copy.deepcopy(planted)
        names, _ = select(model, option)
        model = library.setup(model, option, names, CPU, OnNoise())
        errors[library] = (encoded(model) - encoded(load_nano())).square().mean()
    assert errors[smoothquant] < 0.1 * errors[dynamic_int8]


def encoded(model):
    """Outputs of the encoder for other noise than that of the calibration."""
    with torch.no_grad():
        return model.model.encoder(noise(model).roll(7, 1)).last_hidden_state


def test_what_is_skipped_and_what_feeds_it_keep_their_values(quantized):
    result = quantized("smoothquant_int8", skip=["*.fc1"], target="encoder")
    assert result.receipt.verified, result.receipt.problems
    after, before = result.model.state_dict(), result.original.state_dict()
    for name in before:
        if "decoder" in name or "fc1" in name or "final_layer_norm" in name:
            assert torch.equal(after[name], before[name]), name
    scaled_here = "model.encoder.layers.0.self_attn_layer_norm.weight"
    assert not torch.equal(after[scaled_here], before[scaled_here])


@pytest.mark.parametrize(
    ("changes", "device", "reason"),
    [
        ({"smoothing": None}, "cpu", "SmoothQuant needs quant.smoothing, from 0 to 1"),
        ({"bits": 4}, "cpu", "torch has no quant.bits=4"),
        ({}, "cuda", "kernels for the CPU only, not for cuda: set device=cpu"),
    ],
)
def test_what_cannot_be_has_a_reason(changes, device, reason):
    assert reason in (smoothquant.why_unsupported(quant_config("smoothquant_int8", **changes), device) or "")


@pytest.mark.parametrize("smoothing", [-0.1, 1.5])
def test_smoothing_lies_between_0_and_1(smoothing):
    with pytest.raises(ValueError, match="smoothing"):
        quant_config("smoothquant_int8", smoothing=smoothing)
