"""GPTQ and rounding to the nearest: against hand-computed cases, on the shipped model, and through HQQ's layer."""

import pytest
import torch
from torch import nn

from helpers.quantizing import OnNoise, load_nano, quant_config
from quantlab.config.compose import compose
from quantlab.quantization import hqq_layer
from quantlab.quantization.backends import gptq as backend
from quantlab.quantization.rounding import Block, by_block, gptq, hessians, nearest
from quantlab.quantization.rounding.levels import fitted, spanning
from quantlab.quantization.rounding.rounded import output_error
from quantlab.quantization.select import select
from quantlab.util.errors import ConfigError

CPU = torch.device("cpu")


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.manual_seed(seed))


@pytest.mark.parametrize("seed", range(20))
def test_two_weights_by_the_closed_form(seed):
    """The second weight is moved by (w1 − q1) · H12 / H22, the minimum of e H eᵀ once the first is rounded."""
    weight, x = seeded(1, 2, seed=seed), seeded(50, 2, seed=seed + 100)
    hessian = x.T @ x / 50
    quant = quant_config("gptq_int2", group_size=2, damping=0, act_order=False)
    found = gptq(weight, hessian, quant)
    levels = fitted(weight, 3, hessian.diagonal())
    first = levels.codes(weight[:, :1])
    moved = weight[0, 1] + (weight[0, 0] - levels.values(first)[0, 0]) * hessian[0, 1] / hessian[1, 1]
    expected = torch.cat([first, levels.codes(moved.view(1, 1))], 1)
    error = levels.values(expected) - weight
    if error @ hessian @ error.T <= output_error(nearest(weight, quant), weight, hessian):
        assert torch.equal(found.codes, expected)


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("bits", [4, 3, 2])
def test_its_error_is_below_that_of_the_nearest_in_every_row(bits, act_order):
    weight, x = seeded(24, 64), seeded(500, 64) @ seeded(64, 64, seed=1)  # inputs that go together
    hessian = x.T @ x / 500
    quant = quant_config(f"gptq_int{bits}", group_size=16, act_order=act_order)
    found = output_error(gptq(weight, hessian, quant), weight, hessian)
    control = output_error(nearest(weight, quant), weight, hessian)
    assert (found <= control).all()
    assert found.sum() < 0.7 * control.sum()


def test_the_error_is_that_of_the_outputs():
    weight, x = seeded(8, 32), seeded(100, 32)
    rounded = nearest(weight, quant_config("rtn_int3", group_size=16))
    expected = ((x @ rounded.values().T - x @ weight.T) ** 2).mean(0)
    torch.testing.assert_close(output_error(rounded, weight, x.T @ x / 100), expected)


def test_inputs_that_never_vary_are_rounded_all_the_same():
    x = seeded(100, 32)
    x[:, :8] = 0
    found = gptq(seeded(4, 32), x.T @ x / 100, quant_config("gptq_int4", group_size=16))
    assert found.values().isfinite().all()
    zeros = gptq(seeded(4, 32), torch.zeros(32, 32), quant_config("gptq_int4", group_size=16))
    assert zeros.values().isfinite().all()


@pytest.mark.parametrize("highest", [255, 15, 7, 3])
def test_nearest_levels_span_the_group(highest):
    weights = seeded(5, 4, 16)
    levels = spanning(weights, highest)
    error = (levels.values(levels.codes(weights)) - weights).abs()
    assert (error <= levels.scale / 2 + 1e-6).all()
    assert levels.codes(weights).unique().min() == 0
    assert levels.codes(weights).unique().max() == highest


def test_equal_weights_of_a_group_stay_what_they_are():
    weights = torch.full((2, 16), 0.25)
    for levels in (spanning(weights, 3), fitted(weights, 3, torch.ones(16))):
        torch.testing.assert_close(levels.values(levels.codes(weights)), weights)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_hqqs_layer_holds_the_codes_and_computes_with_them(bits):
    from hqq.core.quantize import Quantizer

    quant = quant_config(f"rtn_int{bits}", group_size=16)
    linear, x = nn.Linear(64, 24).eval(), seeded(3, 64)
    rounded = nearest(linear.weight.detach(), quant)
    expected = x @ rounded.values().T + linear.bias.detach()
    model = nn.Sequential(linear)
    hqq_layer.put(model, "0", rounded, quant, CPU)
    packed = model[0]
    codes = Quantizer.unpack[packed.meta["packing"]](packed.W_q)[: rounded.codes.numel() // 16]
    assert torch.equal(codes.float().reshape(24, 64), rounded.codes)
    torch.testing.assert_close(model(x), expected)


def test_statistics_are_means_over_all_inputs_and_end_with_the_block():
    model, ran = load_nano(), []
    block = Block("model.encoder.layers.0", ("model.encoder.layers.0.fc1",), 0, 1)
    model.model.decoder.register_forward_hook(lambda *_: ran.append("decoder"))
    seen = []
    [name] = block.layers
    model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = hessians(model, block, [*OnNoise().passes(block)] * 2)
    x = torch.cat([item.flatten(0, -2) for item in seen])
    torch.testing.assert_close(found[name], x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    assert not ran
    assert not model.get_submodule(name)._forward_hooks
    model.generate(torch.randn(1, model.config.num_mel_bins, 2 * model.config.max_source_positions), max_new_tokens=2)


def test_blocks_follow_one_another_as_they_run():
    model = load_nano()
    names, _ = select(model, quant_config("gptq_int4", head=True))
    blocks = [block.name for block in by_block(names)]
    encoder, decoder = model.config.encoder_layers, model.config.decoder_layers
    assert blocks == [
        *(f"model.encoder.layers.{index}" for index in range(encoder)),
        *(f"model.decoder.layers.{index}" for index in range(decoder)),
        "proj_out",
    ]
    assert sorted(name for block in by_block(names) for name in block.layers) == sorted(names)


def test_a_quantized_embedding_is_rounded_too(quantized):
    result = quantized("gptq_int4", embedding=True)
    assert result.receipt.verified, result.receipt.problems
    assert "proj_out" in result.names


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"damping": None}, "GPTQ needs quant.damping"),
        ({"bits": 7}, "no quant.bits=7"),
        ({"group_size": 20}, "multiple of 8"),
        ({"symmetric": True}, "no quant.symmetric=True"),
    ],
)
def test_what_cannot_be_has_a_reason(changes, reason):
    assert reason in (backend.why_unsupported(quant_config("gptq_int4", **changes), "cpu") or "")


def test_groups_that_do_not_divide_name_the_module(quantized):
    with pytest.raises(ConfigError, match=r"cannot cut model.encoder.*group_size=40"):
        quantized("gptq_int4", group_size=40)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("quant=gptq_int4", "would be scored on the utterances that it was calibrated with: set calibration.source"),
        ("quant=gptq_int4 calibration.source=manifest", "path=<a manifest of utterances that are not scored>"),
        (
            "quant=hqq_int4 calibration.source=manifest calibration.path=x",
            "calibration.path=x: no effect without a quantizer that it",
        ),
        ("quant=hqq_int4 calibration.labels=reference", "calibration.labels=reference: no effect without"),
        (
            "quant=gptq_int4 calibration.source=disjoint calibration.limit=4",
            "calibration.limit=4: no effect without calibration.source=manifest",
        ),
    ],
)
def test_calibration_that_cannot_be_is_refused(line, message):
    with pytest.raises(ConfigError, match=message):
        compose([*line.split(), "device=cpu"])
