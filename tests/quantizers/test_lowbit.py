"""The experiments on few bits: which cells they are, and that a sweep writes each of them one way."""

import itertools

import pytest
import yaml

from helpers.quantizing import ROOT, quant_config
from quantlab.config.schema import QuantConfig
from quantlab.quantization import registry


def cells(experiment):
    """The quantizers of an experiment's product, each once; `tests/test_app.py` has Hydra compose it."""
    study = yaml.safe_load((ROOT / "experiments" / f"{experiment}.yaml").read_text())
    params = {key: str(values).split(",") for key, values in study["hydra"]["sweeper"]["params"].items()}
    names, *keys = params
    assert names == "quant"
    found = []
    for name, *values in itertools.product(*params.values()):
        swept = {key.removeprefix("quant."): yaml.safe_load(value) for key, value in zip(keys, values, strict=True)}
        found.append(quant_config(name, **study.get("quant", {}), **swept))
    return list({quant.model_dump_json(): quant for quant in found}.values())


def test_lowbit_is_every_bit_width_by_every_group_size_in_the_decoder():
    baseline, *quantized = cells("lowbit")
    assert baseline.name == "none"
    assert {item.target for item in quantized} == {"decoder"}
    found = [(item.bits, item.group_size) for item in quantized]
    assert sorted(found) == sorted((bits, size) for bits in (8, 4, 3, 2, 1.58, 1) for size in (64, 32, 16))


def test_design_choices_are_a_whole_product_of_which_one_library_makes_each_cell():
    baseline, *quantized = cells("design_choices")
    assert baseline.name == "none"
    assert {(item.library, item.scheme) for item in quantized} == {("torchao", "weight-only")}
    found = {(item.bits, item.granularity, item.group_size, item.symmetric) for item in quantized}
    assert found == {
        (bits, granularity, size, symmetric)
        for bits in (8, 4, 3, 2)
        for granularity, size in (("per-channel", None), ("per-group", 64), ("per-group", 32))
        for symmetric in (True, False)
    }
    assert len(quantized) == len(found) == 24
    assert all(registry.get("torchao").why_unsupported(item, "cpu") is None for item in quantized)


def test_keys_of_a_sweep_that_do_not_apply_make_no_other_cell():
    plain = QuantConfig(name="none", library="none", scheme="none")
    swept = {
        "bits": 4,
        "group_size": 16,
        "granularity": "per-group",
        "symmetric": True,
        "target": "decoder",
        "head": True,
    }
    assert QuantConfig(name="none", library="none", scheme="none", **swept) == plain
    torchao = {"name": "x", "library": "torchao", "bits": 4}
    assert QuantConfig(**torchao, granularity="per-channel", group_size=32).group_size is None
    assert QuantConfig(**torchao, granularity="per-group", group_size=32).group_size == 32
    with pytest.raises(ValueError, match="bitts"):
        QuantConfig(name="none", library="none", scheme="none", bitts=4)
