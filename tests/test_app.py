"""The command line: every YAML composes, into the cells that were meant. Mistakes are in faults/test_mistakes.py."""

import pytest

from quantlab.config.hydra import composed
from quantlab.config.options import option
from quantlab.config.parse import parse_config, parse_grid
from quantlab.config.quant import CALIBRATED
from quantlab.util.errors import ConfigError
from quantlab.util.resources import shared_dir


def options(group):
    return sorted(path.stem for path in (shared_dir("conf") / group).glob("*.yaml"))


EXTRA = {  # options that are only complete with a key of the user's
    ("dataset", "manifest"): ["dataset.path=lines.jsonl"],
    ("dataset", "librispeech_dir"): ["dataset.path=LibriSpeech"],
    ("tracking", "server"): ["tracking.uri=http://127.0.0.1:5000"],
    ("runtime", "streaming"): ["protocol.batch_size=1"],
    **{
        ("quant", name): ["calibration.source=disjoint"]
        for name in options("quant")
        if option("quant", name)["library"] in CALIBRATED
    },
}
GROUPS = ("model", "quant", "device", "runtime", "dataset", "protocol", "tracking")


@pytest.mark.parametrize(("group", "option"), [(group, name) for group in GROUPS for name in options(group)])
def test_every_option_composes(group, option, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: rtn\ngroup_size: 64\nmodules: {'*': 4}\n")
    file = [f"quant.path={recipe}"] if option == "recipe" else []
    [point] = composed([f"{group}={option}", *EXTRA.get((group, option), []), *file]).points
    config = parse_grid([point])[0]
    assert getattr(config, group).name == ("eager" if option == "streaming" else option)


@pytest.mark.parametrize("name", sorted(path.stem for path in shared_dir("experiments").glob("*.yaml")))
def test_every_experiment_composes(name):
    cells = parse_grid(composed([f"experiment={name}"]).points)
    offline = parse_grid(composed([f"experiment={name}", "model=nano", "dataset=demo"]).points)
    assert cells
    assert {cell.model.name for cell in offline} == {"nano"}


def test_names_of_the_design_are_all_there():
    assert set(options("quant")) >= set(
        "none torch_int8 quanto_int8 quanto_int4 quanto_int2 quanto_fp8 quanto_int8_static quanto_int8_fp8_static "
        "hqq_int8 hqq_int4 hqq_int3 hqq_int2 hqq_ternary hqq_int1 bnb_int8 bnb_nf4 bnb_nf4_dq bnb_fp4".split()
    )
    assert set(options("model")) >= set(
        "nano tiny base small medium large_v2 large_v3 large_v3_turbo distil_large_v3".split()
    )
    assert set(options("dataset")) >= {"demo", "librispeech", "librispeech_dir", "manifest"}


def test_table2_is_the_study_s_own_cells():
    labels = [cell.label for cell in parse_grid(composed(["experiment=paper_table2"]).points)]
    assert sorted(labels) == sorted(
        [f"small-{name}-cpu" for name in ("none", "torch_int8", "quanto_int8_static", "hqq_int4")]
        + [f"small-{name}-cuda" for name in ("none", "quanto_int8", "bnb_nf4", "hqq_int3")]
    )


def test_sweep_is_the_product_in_order():
    cells = parse_grid(composed(["-m", "model=small,base,tiny", "quant=quanto_int8,bnb_nf4"]).points)
    assert [(cell.model.name, cell.quant.name) for cell in cells] == [
        ("small", "quanto_int8"),
        ("small", "bnb_nf4"),
        ("base", "quanto_int8"),
        ("base", "bnb_nf4"),
        ("tiny", "quanto_int8"),
        ("tiny", "bnb_nf4"),
    ]


def test_the_sign_of_a_sweep_stands_anywhere():
    for line in ("-m seed=1,2 quant=none", "seed=1,2 -m quant=none", "seed=1,2 quant=none --multirun"):
        assert [cell.seed for cell in parse_grid(composed(line.split()).points)] == [1, 2]


def test_glob_sweeps_a_group():
    cells = parse_grid(composed(["-m", "quant=glob(hqq_*)"]).points)
    assert [cell.quant.name for cell in cells] == [name for name in options("quant") if name.startswith("hqq_")]


def test_several_mistakes_are_all_named():
    [point] = composed([]).points
    point["seed"] = -1
    point["protocol"]["batch_size"] = 0
    with pytest.raises(ConfigError) as error:
        parse_config({key: value for key, value in point.items() if key != "only"})
    assert "seed=-1" in str(error.value)
    assert "protocol.batch_size=0" in str(error.value)


def test_configuration_cannot_be_changed():
    [config] = parse_grid(composed([]).points)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1
