"""The choice of formats against exhaustive search, and bytes against those of HQQ's layers."""

import itertools
import random

import pytest
import torch

from helpers.quantizing import load_nano, quant_config, quantize
from quantlab.allocation import Format, cheapest, choose
from quantlab.allocation.size import Shape, fitting, stored_bytes, why_not
from quantlab.quantization import hqq_layer
from quantlab.util.errors import ConfigError


def exhaustive(formats, budget):
    """The least loss within the budget, by trying all combinations."""
    every = itertools.product(*formats.values())
    return min(sum(item.loss for item in some) for some in every if sum(item.bytes for item in some) <= budget)


def some_formats(seed, modules=5):
    draw = random.Random(seed)
    found = {}
    for name in "abcdefgh"[:modules]:
        params, worth = draw.randrange(1_000, 400_000) * 64, 10 ** draw.uniform(-4, 0)
        found[name] = [
            Format(bits, int(params * bits / 8) + draw.randrange(64), worth * 4**-bits) for bits in (2, 3, 4, 8)
        ]
        found[name].append(Format(None, params * 4, 0.0))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_least_loss_is_that_of_exhaustive_search(seed):
    formats = some_formats(seed)
    least = sum(item.bytes for item in cheapest(formats).values())
    most = sum(some[-1].bytes for some in formats.values())
    budget = least + int((most - least) * random.Random(seed).random() ** 3)
    found = choose(formats, budget)
    assert sum(item.bytes for item in found.values()) <= budget
    assert sum(item.loss for item in found.values()) == pytest.approx(exhaustive(formats, budget), rel=1e-5)


def test_a_budget_is_held_to_the_byte():
    formats = some_formats(7)
    for bought in itertools.islice(itertools.product(*formats.values()), 0, None, 97):
        budget = sum(item.bytes for item in bought)
        assert sum(item.bytes for item in choose(formats, budget).values()) <= budget
        if budget > (least := sum(item.bytes for item in cheapest(formats).values())):
            assert sum(item.bytes for item in choose(formats, budget - 1).values()) <= budget - 1
    assert choose(formats, least) == cheapest(formats)
    with pytest.raises(ConfigError, match=f"{least - 1:,} bytes: the smallest formats of all modules take {least:,}"):
        choose(formats, least - 1)


def test_without_any_loss_the_budget_still_holds():
    formats = {name: [Format(2, 10, 0.0), Format(4, 20, 0.0)] for name in "abc"}
    assert sum(item.bytes for item in choose(formats, 41).values()) <= 41


@pytest.mark.parametrize("group_size", [16, 64])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bytes_are_those_of_the_receipt(bits, group_size, dtype):
    model = load_nano().to(dtype)
    shapes = {
        name: Shape(module.out_features, module.in_features, module.bias is not None, dtype.itemsize)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    _, names, evidence, _ = quantize(model, quant_config(f"rtn_int{bits}", group_size=group_size))
    assert {shape.bias for shape in shapes.values()} == {True, False}
    for item in evidence.modules:
        stored = bits if item.name in names else None
        assert stored_bytes(shapes[item.name], stored, group_size) == item.bytes_after
        assert stored_bytes(shapes[item.name], None, group_size) == item.bytes_before


@pytest.mark.parametrize(("outputs", "inputs", "group_size"), [(24, 64, 40), (3, 64, 64), (6, 64, 64), (24, 64, 16)])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_what_hqq_refuses_is_no_format(outputs, inputs, group_size, bits):
    model = torch.nn.Sequential(torch.nn.Linear(inputs, outputs))
    quant = quant_config(f"rtn_int{bits}", group_size=group_size)
    reason = why_not(Shape(outputs, inputs, True, 4), bits, group_size)
    if reason is None:
        hqq_layer.check_groups(model, quant, ("0",))
    else:
        with pytest.raises(ConfigError, match="cannot cut"):
            hqq_layer.check_groups(model, quant, ("0",))


def test_group_sizes_are_multiples_of_eight_as_in_the_layer():
    shape = Shape(outputs=24, inputs=60, bias=True, float_bytes=4)
    for group_size in (4, 12, 60):
        assert why_not(shape, 8, group_size) == "HQQ's layer takes multiples of 8"
        quant = quant_config("rtn_int8", group_size=group_size)
        assert "a multiple of 8" in hqq_layer.why_unsupported(quant, "cpu")


def test_the_group_sizes_that_fit_every_module():
    """Of 48 and 80 inputs, the multiples of 8 that divide both are 8 and 16; one row of 48 gives 3 groups of 16."""
    wide, narrow = Shape(4, 80, True, 4), Shape(4, 48, True, 4)
    assert fitting([wide, narrow], (8.0, 2.0)) == [8, 16]
    assert fitting([wide, Shape(1, 48, True, 4)], (8.0,)) == [8, 16]
    assert fitting([wide, Shape(1, 48, True, 4)], (4.0,)) == [8]  # two rows of groups a byte: 6 groups pack, 3 do not
    assert fitting([Shape(4, 60, True, 4)], (8.0,)) == []
