"""Scales of inputs, folded into what comes before: the unquantized model computes the same."""

import pytest
import torch

from helpers.quantizing import load_nano, noise, quant_config
from quantlab.quantization.rounding import by_block, fold, places, scaled
from quantlab.quantization.select import select


def all_places(model, **changes):
    names, _ = select(model, quant_config("awq_int3", **changes))
    return [place for block in by_block(names) for place in places(block)]


def logits(model):
    tokens = torch.arange(16).view(2, 8)
    with torch.no_grad():
        return model(noise(model), decoder_input_ids=tokens).logits


def seeded_scale(channels, seed):
    """From a fifth to the fivefold."""
    return 5 ** (2 * torch.rand(channels, generator=torch.manual_seed(seed)) - 1)


NANO = load_nano()
PLACES = all_places(NANO)


def test_a_block_has_all_places_but_before_fc2_and_the_keys_and_values_of_cross_attention():
    read = {name for place in PLACES for name in place.after}
    names, _ = select(NANO, quant_config("awq_int3"))
    left = {name for name in names if name not in read}
    assert left == {name for name in names if name.endswith(("fc2", "encoder_attn.k_proj", "encoder_attn.v_proj"))}
    assert len(PLACES) == 3 * NANO.config.encoder_layers + 5 * NANO.config.decoder_layers


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.before.removeprefix("model."))
def test_a_place_computes_the_same(place):
    model = load_nano()
    channels = model.get_submodule(place.after[0]).in_features
    fold(model, place, seeded_scale(channels, 0))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, NANO.state_dict()[name])}
    assert changed == {f"{place.before}.weight", f"{place.before}.bias", *(f"{name}.weight" for name in place.after)}
    torch.testing.assert_close(logits(model), logits(NANO), rtol=1e-5, atol=1e-5)


def test_all_places_together_compute_the_same_word_for_word():
    model = load_nano()
    for seed, place in enumerate(PLACES):
        fold(model, place, seeded_scale(model.get_submodule(place.after[0]).in_features, seed))
    expected = logits(NANO)
    assert (logits(model) - expected).norm() <= 1e-5 * expected.norm()
    told = [
        one.generate(noise(one), max_new_tokens=12, min_new_tokens=12)  # through the caches of keys and values
        for one in (model, NANO)
    ]
    assert torch.equal(*told)


def test_powers_of_two_are_exact_to_the_bit_in_half_precision_too():
    for dtype in (torch.float32, torch.bfloat16):
        model, [place] = load_nano().to(dtype), [one for one in PLACES if one.before.endswith("0.final_layer_norm")][:1]
        norm, fc1 = model.get_submodule(place.before), model.get_submodule(place.after[0])
        x = torch.randn(5, norm.normalized_shape[0], generator=torch.manual_seed(0)).to(dtype)
        with torch.no_grad():
            expected = fc1.weight * norm(x)[0]
            fold(model, place, 2.0 ** torch.arange(norm.normalized_shape[0]).remainder(7).sub(3))
            assert torch.equal(fc1.weight * norm(x)[0], expected)


@pytest.mark.parametrize(
    ("skip", "gone"),
    [
        ("*.0.self_attn.k_proj", {"self_attn_layer_norm"}),
        ("*.0.self_attn.v_proj", {"self_attn_layer_norm", "self_attn.v_proj"}),
        ("*.0.self_attn.out_proj", {"self_attn.v_proj"}),
        ("*.0.fc1", {"final_layer_norm"}),
        ("*.0.fc2", set()),
    ],
)
def test_a_place_with_a_linear_that_keeps_its_weights_is_left_alone(skip, gone):
    found = all_places(NANO, skip=[skip], target="encoder")
    whole = all_places(NANO, target="encoder")
    assert {place.before.removeprefix("model.encoder.layers.0.") for place in whole if place not in found} == gone


def test_the_statistics_are_those_of_the_scaled_inputs():
    x, scale = torch.randn(50, 6, generator=torch.manual_seed(0)), seeded_scale(6, 1)
    torch.testing.assert_close(scaled(x.T @ x / 50, scale), (x / scale).T @ (x / scale) / 50)
