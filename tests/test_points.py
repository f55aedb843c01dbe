"""A sweep out of few compositions is the sweep that Hydra composes point by point."""

import itertools
import json

import pytest

from quantlab.config.hydra import _values, composed
from quantlab.config.sweep import expanded, needed
from quantlab.util import progress

SWEEPS = [
    ("model=nano,tiny", "quant=none,hqq_int4", "seed=0,1", "quant.group_size=32,64"),
    ("dataset.noise.kind=white", "dataset.noise.snr_db=inf,10", "dataset=demo,demo_long"),
    ("model.path=/x/${seed}", "seed=1,2"),  # a key that follows from another
    ("experiment=paper_table2,demo", "seed=1,2"),
]


@pytest.mark.parametrize("sweep", SWEEPS, ids=" ".join)
def test_the_same_points_in_the_same_order(sweep):
    points = composed(["-m", *sweep]).points
    assert json.dumps(points) == json.dumps(composed(["-m", *sweep], whole=True).points)
    assert len(points) >= 2


def sweep_of(*axes):
    return list(itertools.product(*([f"{key}={value}" for value in values] for key, values in axes)))


def test_a_thousand_cells_take_twenty_compositions():
    models, quants = ("nano", "tiny", *"abcdefgh"), ("none", *"qrstuvwxy")
    sweep = sweep_of(("model", models), ("quant", quants), ("seed", range(10)))
    assert len(sweep) == 1000
    assert len(needed(sweep, _values)) == 20
    assert len(needed(sweep_of(("seed", range(1000))), _values)) == 2


def some_of(sweep, compose):
    return {
        overrides: compose(*(override.split("=")[1] for override in overrides)) for overrides in needed(sweep, none)
    }


def none(override):
    return None


def test_independent_axes_combine():
    sweep = sweep_of(("model", "ab"), ("quant", "xyz"))
    compose = lambda model, quant: {"model": {"name": model}, "quant": {"name": quant, "bits": ord(quant)}}  # noqa: E731
    found = expanded(sweep, some_of(sweep, compose), none)
    assert found == [compose(model, quant) for model in "ab" for quant in "xyz"]


@pytest.mark.parametrize(
    "compose",
    [
        lambda model, quant: {"label": model + quant},  # both change the same key
        lambda model, quant: {"both": (model, quant) == ("b", "z")},  # neither does alone
        lambda model, quant: {"model": {"name": model} if model == "a" else {"title": model}},  # other keys
    ],
)
def test_axes_that_depend_on_each_other_are_noticed(compose):
    sweep = sweep_of(("model", "ab"), ("quant", "xyz"))
    assert expanded(sweep, some_of(sweep, compose), none) is None


def test_many_points_say_how_far_they_are(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_S", 0)
    monkeypatch.setattr(progress, "EVERY_S", 0)
    assert len(composed(["-m", "seed=range(600)", "quant=none,torch_int8"]).points) == 1200
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "composing about 1,200 cells"
    assert "600 of 1,200 cells composed" in lines
    composed(["-m", "seed=range(4)", "quant=none,torch_int8"])
    assert capsys.readouterr().err == ""
