"""A sweep out of few compositions is the sweep that Hydra composes point by point."""

import itertools
import json
import shutil

import pytest

from quantlab.config import plain
from quantlab.config.hydra import _effects, _values, composed
from quantlab.config.options import names
from quantlab.config.sweep import expanded, needed
from quantlab.util import progress
from quantlab.util.resources import shared_dir

SWEEPS = [
    ("model=nano,tiny", "quant=none,hqq_int4", "seed=0,1", "quant.group_size=32,64"),
    ("dataset.noise.kind=white", "dataset.noise.snr_db=inf,10", "dataset=demo,demo_long"),
    ("model.path=/x/${seed}", "seed=1,2"),  # a key that follows from another
    ("experiment=paper_table2,demo", "seed=1,2"),
    # The first and the last option have the value that is set, or referred to, but the one between does not.
    ("quant=hqq_int4,hqq_int3,quanto_int4", "quant.bits=4"),
    ("quant=hqq_int4,hqq_int3,quanto_int4", "++quant.group_size=64"),
    ("model=tiny,nano,base", "dataset.path=/x/${model.source}"),
    ("dataset.path=/x,/y/${seed},/z", "seed=1,2"),
    ("tracking=local,server,off", "quant=none,hqq_int4,bnb_nf4", "device=cpu,cuda"),
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


def test_a_thousand_cells_of_shipped_options_take_two_compositions():
    quants = names("quant")[:10]
    sweep = sweep_of(("model", names("model")[:10]), ("quant", quants), ("seed", range(10)), ("device", ["cpu"]))
    assert len(needed(sweep, _effects([], sweep))) == 2
    for more, arguments in (("quant.bits=4", []), ("experiment=demo", []), ("model.path=${seed}", [])):
        longer = [(*overrides, more) for overrides in sweep]
        assert len(needed(longer, _effects(arguments, longer))) > 2
    assert len(needed(sweep, _effects(["--config-dir=/x"], sweep))) == 20


GROUPS = sorted(
    path.name for path in shared_dir("conf").iterdir() if path.is_dir() and path.name not in ("base", "hydra")
)


@pytest.mark.parametrize("group", GROUPS)
def test_an_option_read_from_its_file_is_the_composed_one(group):
    read = {name: plain.section(group, name) for name in names(group)}
    known = [name for name in read if read[name] is not None]
    assert set(read) - set(known) <= {"server"}  # refers to the environment
    points = composed(["-m", f"{group}={','.join(known)}"], whole=True).points
    assert [point[group] for point in points] == [read[name] for name in known]


@pytest.mark.parametrize(
    ("file", "more"),
    [
        ("quant/hqq_int3.yaml", "# @package _global_\n"),
        ("model/tiny.yaml", "repo: ${quant.name}\n"),
        ("model/mine.yaml", "defaults: [tiny, _self_]\n"),
        ("model/mine.yaml", "defaults:\n  - /dataset: demo_long\n"),
        ("quant/mine.yaml", "defaults: [/base/dataset@_here_, _self_]\n"),
        ("config.yaml", "model: {path: /x}\n"),
        ("config.yaml", "output_dir: runs/${model.name}\n"),
        ("hydra/launcher/mine.yaml", "# @package _global_\nseed: 1\n"),
    ],
)
def test_a_file_that_may_set_more_than_its_section_is_composed(file, more, tmp_path):
    shutil.copytree(shared_dir("conf"), tmp_path / "conf")
    with (tmp_path / "conf" / file).open("a") as opened:
        opened.write(more)
    assert plain._is_as_shipped(shared_dir("conf"))
    assert not plain._is_as_shipped(tmp_path / "conf")


def test_a_study_that_is_the_default_is_composed(tmp_path):
    shutil.copytree(shared_dir("conf"), tmp_path / "conf")
    main = tmp_path / "conf" / "config.yaml"
    main.write_text(main.read_text().replace("experiment: null", "experiment: demo"))
    assert not plain._is_as_shipped(tmp_path / "conf")


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
