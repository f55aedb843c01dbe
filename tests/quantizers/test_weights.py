"""What the libraries store, dequantized, against bounds that follow from the bit widths."""

import pytest
import torch

LAYER = "model.encoder.layers.0.fc1"
NF4_HALF_GAP = (1 - 0.6961928) / 2  # the widest gap of the 16 levels, arXiv 2305.14314, appendix E
FP4_HALF_GAP = (1 - 2 / 3) / 2  # levels ±(0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1)
ROUNDING = 1.001  # float arithmetic around an exact bound


def dequantized(library, module):
    if library == "torch":
        return module.weight().dequantize()
    if library == "hqq" or library == "quanto":
        return module.dequantize() if library == "hqq" else module.weight.dequantize()
    if module.weight.dtype is torch.int8:
        return module.weight.float() * module.weight.SCB[:, None] / 127
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(module.weight, module.weight.quant_state)


def error(result, name=LAYER):
    weight = result.original.get_submodule(name).weight.detach()
    with torch.no_grad():
        return weight, (dequantized(result.quant.library, result.model.get_submodule(name)) - weight).abs()


def groups(tensor, size):
    return tensor.reshape(-1, size)


def test_torch_rounds_to_a_step_per_tensor(quantized):
    weight, off = error(quantized("torch_int8"))
    assert off.max() <= weight.abs().max() / 127.5 / 2 * ROUNDING


@pytest.mark.parametrize("name", ["quanto_int8", "quanto_int8_static", "bnb_int8"])
def test_int8_rounds_to_a_step_per_channel(name, quantized):
    weight, off = error(quantized(name))
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    fp16 = 2**-11 if name == "bnb_int8" else 0  # bitsandbytes rounds the weight to fp16 first
    assert (off <= (step / 2 + weight.abs() * fp16) * ROUNDING).all()


def test_fp8_keeps_three_bits_of_mantissa(quantized):
    weight, off = error(quantized("quanto_fp8"))
    scale = weight.abs().amax(dim=1, keepdim=True) / 448  # the largest e4m3 number
    subnormal = scale * 2**-10
    assert (off <= torch.maximum(weight.abs() * 2**-4, subnormal) * ROUNDING).all()


@pytest.mark.parametrize(("name", "bits"), [("quanto_int4", 4), ("quanto_int2", 2)])
def test_quanto_rounds_to_a_step_per_group(name, bits, quantized):
    result = quantized(name)
    size = result.model.get_submodule(LAYER).weight_group_size
    weight, off = (groups(item, size) for item in error(result))
    step = (weight.amax(1, keepdim=True) - weight.amin(1, keepdim=True)) / (2**bits - 1)
    assert (off <= step / 2 * ROUNDING + 1e-7).all()


@pytest.mark.parametrize(
    ("name", "half_gap"), [("bnb_nf4", NF4_HALF_GAP), ("bnb_nf4_dq", NF4_HALF_GAP), ("bnb_fp4", FP4_HALF_GAP)]
)
def test_four_bit_formats_round_to_the_nearest_level(name, half_gap, quantized):
    weight, off = (groups(item, 64) for item in error(quantized(name)))
    absmax = weight.abs().amax(1, keepdim=True)
    slack = 0.05 if name.endswith("dq") else 0  # the scale itself is rounded to 8 bit
    assert (off <= absmax * (half_gap + slack) * ROUNDING).all()
    assert off.mean() < 0.5 * half_gap * absmax.mean()


@pytest.mark.parametrize(
    ("name", "levels"),
    [("hqq_int8", 256), ("hqq_int4", 16), ("hqq_int3", 8), ("hqq_int2", 4), ("hqq_ternary", 3), ("hqq_int1", 2)],
)
def test_hqq_has_its_levels_and_beats_plain_rounding(name, levels, quantized):
    result = quantized(name)
    weight, off = (groups(item, 64) for item in error(result))
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    step = (high - low) / (levels - 1)
    rounded = ((weight - low) / step).round() * step + low
    assert off.mean() <= (rounded - weight).abs().mean() * 1.02

    with torch.no_grad():
        values = groups(result.model.get_submodule(LAYER).dequantize(), 64)
    assert max(len(row.unique()) for row in values) <= levels


@pytest.mark.parametrize(
    "falling",
    [
        ["hqq_int8", "hqq_int4", "hqq_int3", "hqq_int2", "hqq_ternary", "hqq_int1"],
        ["quanto_int8", "quanto_int4", "quanto_int2"],
        ["bnb_int8", "bnb_nf4"],
    ],
)
def test_fewer_bits_lose_more(falling, quantized):
    errors = [error(quantized(name))[1].pow(2).mean().item() for name in falling]
    assert errors == sorted(errors)
    assert errors[-1] > 10 * errors[0]


def test_ternary_is_as_large_as_two_bits(quantized):
    assert quantized("hqq_ternary").receipt.size_bytes == quantized("hqq_int2").receipt.size_bytes


def test_smaller_groups_lose_less(quantized):
    errors = [error(quantized("hqq_int2", group_size=size))[1].pow(2).mean() for size in (16, 32, 64)]
    assert errors[0] < errors[1] < errors[2]
