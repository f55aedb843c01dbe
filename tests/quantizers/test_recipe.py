"""Recipes: other bits for each module, from a file to the receipt, the id and an export without the file."""

import json
import shlex

import pytest
import torch

from helpers.quantizing import load_nano, quantize
from helpers.synthetic import result
from quantlab import run_cell
from quantlab.analysis.pairs import find_baselines
from quantlab.config import overrides
from quantlab.config.compose import compose
from quantlab.config.recipe import read
from quantlab.export import load
from quantlab.grid.plan import plan
from quantlab.records.cell_id import identity
from quantlab.util.errors import ConfigError

FEW = (
    "device=cpu device.threads=1 device.pin=false dataset.limit=4 dataset.splits=[other] protocol=quick tracking=off"
).split()
MIXED = {
    "model.encoder.layers.[0-2].*": 8,
    "model.encoder.layers.[3-5].self_attn.*": 3,
    "model.encoder.layers.[3-5].fc?": 2,
    "model.decoder.layers.0.*": 4,
    "model.decoder.layers.1.fc1": "none",
    "model.decoder.layers.1.fc2": 2,
    "model.decoder.layers.1.*attn.*": 4,
    "proj_out": "none",
}


def expected(name):
    """Bits by MIXED, spelt out."""
    if name == "proj_out" or name.endswith("decoder.layers.1.fc1"):
        return None
    layer = int(name.split(".")[3])
    if ".encoder.layers" in name:
        return 8 if layer < 3 else 2 if ".fc" in name else 3
    return 2 if name.endswith("layers.1.fc2") else 4


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe: `recipe("rtn", modules)` is its path."""

    def write(method="rtn", modules=MIXED, text=None, **keys):
        path = tmp_path / "recipe.yaml"
        lines = [f"{key}: {value}" for key, value in {"method": method, "group_size": 64, **keys}.items()]
        lines += ["modules:", *(f"  '{name}': {bits}" for name, bits in modules.items())]
        path.write_text("\n".join(lines) if text is None else text)
        return str(path)

    return write


def composed(path, *more):
    [config] = compose([*FEW, "quant=recipe", f"quant.path={path}", *more])
    return config


@pytest.mark.parametrize("method", ["rtn", "hqq", "gptq"])
def test_each_module_has_its_bits(recipe, method):
    quant = composed(recipe(method), "calibration.source=disjoint").quant
    _, names, evidence, _ = quantize(load_nano(), quant)
    assert evidence.verified, evidence.problems
    assert {item.name: item.bits for item in evidence.modules} == {
        item.name: expected(item.name) for item in evidence.modules
    }
    assert {item.name for item in evidence.modules if item.skipped} == {"proj_out", "model.decoder.layers.1.fc1"}
    assert "model.decoder.layers.1.fc1" not in names


@pytest.mark.parametrize("method", ["rtn", "hqq", "gptq"])
def test_one_number_of_bits_for_all_is_the_uniform_quantizer(recipe, method):
    path = recipe(method, {"model.*": 3, "proj_out": "none"})
    [plain] = compose([*FEW, f"quant={method}_int3", "calibration.source=disjoint"])
    mixed, *_ = quantize(load_nano(), composed(path, "calibration.source=disjoint").quant)
    uniform, *_ = quantize(load_nano(), plain.quant)
    for name, module in mixed.named_modules():
        if hasattr(module, "W_q"):
            assert torch.equal(module.W_q, uniform.get_submodule(name).W_q), name
            assert torch.equal(module.meta["scale"], uniform.get_submodule(name).meta["scale"])


def test_the_content_is_the_identity_and_not_the_path(recipe, tmp_path):
    path = recipe()
    [first] = plan([composed(path)])
    copy = tmp_path / "elsewhere.yaml"
    copy.write_text((tmp_path / "recipe.yaml").read_text() + "\n# a comment\n")
    [same] = plan([composed(copy)])
    assert first.id == same.id
    [other] = plan([composed(recipe(modules=MIXED | {"model.decoder.layers.1.fc2": 3}))])
    assert other.id != first.id
    assert other.fingerprints["recipe"] != first.fingerprints["recipe"]
    assert other.fingerprints["checkpoint"] == first.fingerprints["checkpoint"]


def test_recipes_of_one_sweep_have_fingerprints_of_their_own(recipe, tmp_path):
    path = recipe()
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "recipe.yaml").read_text().replace("fc?': 2", "fc?': 3"))
    alone = [plan([composed(each)])[0] for each in (path, other)]
    together = plan(compose([*FEW, "quant=recipe", f"quant.path={path},{other}"]))
    assert [cell.fingerprints for cell in together] == [cell.fingerprints for cell in alone]
    assert len({cell.fingerprints["recipe"] for cell in together}) == 2


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_the_command_that_measures_it_again_names_the_file(recipe, method):
    path = recipe(method)
    config = composed(path, "calibration.source=disjoint")
    line = overrides.command(config.model_dump(mode="json"), "mlruns")
    words = shlex.split(line)
    assert words[:2] == ["quantlab", "-m"]
    assert "quant=none,recipe" in words
    assert [word for word in words if word.startswith("quant.")] == [f"quant.path={path}"]
    assert compose(words[2:])[1].quant == config.quant


def test_its_baseline_is_the_cell_without_quantization():
    """Which has neither recipe nor calibration data."""
    records = [
        result("none", "a").record.model_copy(update={"fingerprints": {"checkpoint": "c", "corpus": "d"}}),
        result("hqq_int4", "b").record.model_copy(
            update={"fingerprints": {"checkpoint": "c", "corpus": "d", "recipe": "r", "calibration": "e"}}
        ),
    ]
    assert find_baselines(records)["b"] == "a"


def test_cells_without_a_recipe_keep_their_identity():
    [config] = compose([*FEW, "quant=hqq_int4"])
    assert not {"path", "method", "modules"} & identity(config.model_dump(mode="json"))["quant"].keys()


def test_a_sweep_takes_the_recipe_beside_others(recipe):
    path = recipe()
    configs = compose([*FEW, "quant=none,hqq_int4,recipe", f"quant.path={path}"])
    assert [config.quant.path for config in configs] == [None, None, path]
    assert [bool(config.quant.modules) for config in configs] == [False, False, True]


def test_only_gptq_is_calibrated(recipe):
    assert not composed(recipe("rtn")).quant.is_calibrated
    with pytest.raises(ConfigError, match="quant=recipe would be scored on the utterances that it was calibrated"):
        composed(recipe("gptq"))
    found = composed(recipe("gptq"), "calibration.source=disjoint").quant
    assert found.is_calibrated
    assert (found.act_order, found.damping) == (True, 0.01)
    assert composed(recipe("gptq", damping=0.1, act_order="false"), "calibration.source=disjoint").quant.damping == 0.1


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"model.*": 4}, "it lacks 1 module of the model, e.g. proj_out: give the bits, or none"),
        (
            {"*": 4, "model.encoder.layers.9.fc1": 4},
            "layers.9.fc1 matches no Linear module of the model; nearest: model",
        ),
        ({"*": 4, "proj_out": "none"}, "proj_out is given twice, by .* and proj_out: give each module once"),
        (
            {"model.*": 7, "proj_out": "none"},
            r"recipe.yaml: model.\*: 7: method: rtn takes 1, 1.58, 2, 3, 4, 8 or none",
        ),
        ({"*": "none"}, "recipe.yaml: every module is none, so the recipe quantizes nothing: give one its bits"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_anything_is_measured(recipe, modules, message):
    with pytest.raises(ConfigError, match=message) as caught:
        plan([composed(recipe(modules=modules))])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: rtn\ngroup_size: 64\nmodules:\n  a: 4\n  a: 3\n", "line 5: a is given twice"),
        ("method: awq\ngroup_size: 64\nmodules: {a: 4}\n", "is no recipe: method='awq': .*'rtn', 'hqq' or 'gptq'"),
        (
            "group_size: 64\nmodules: {a: 4}\n",
            "is no recipe: method: required, but not given; correct it: quantlab allo",
        ),
        (
            "method: rtn\ngroup_size: 64\nbitz: 3\nmodules: {a: 4}\n",
            "bitz: no such key; allowed: act_order, damping, gro",
        ),
        ("method: rtn\ngroup_sise: 64\nmodules: {a: 4}\n", r"group_sise: no such key; did you mean 'group_size'\?"),
        ("method: rtn\ngroup_size: 64\nmodules: {a: }\n", "a: expected bits, or none"),
        ("method: rtn\ngroup_size: 64\nmodules: {a: four}\n", "modules.a='four': input should be a valid number"),
        ("method: rtn\ngroup_size: 64\nmodules: {}\n", "is no recipe: modules: it names none: give each"),
        ("method: rtn\ngroup_size: 64\nmodules: 4\n", "is no recipe: modules=4: expected names with values"),
        ("method: rtn\ngroup_size: 64\ndamping: 0.1\nmodules: {a: 4}\n", "damping: only method: gptq reads it"),
        (
            "method: rtn\ngroup_size: 6.5\nmodules: {a: 4}\n",
            "group_size=6.5: input should be a valid integer.*; correct it: quantlab allocate writes one$",
        ),
        (
            "- 1\n",
            r"is no recipe: it holds \[1\]; expected the keys method, group_size, modules; quantlab allo",
        ),
        ("", "is no recipe: it is empty; expected the keys method, group_size, modules; quantlab allo"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_says_why(recipe, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        composed(recipe(text=text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("quant=recipe", "quant=recipe: set quant.path=FILE"),
        ("quant=recipe quant.path=/nowhere.yaml", "'/nowhere.yaml': No such file"),
        ("quant=recipe quant.path={} quant.group_size=32", "quant.group_size=32: .* has 64"),
        ("quant=hqq_int4 quant.path={}", "quant.path=.*: no effect on quant=hqq_int4, as only quant=recipe reads"),
        ("quant=none quant.path={}", "quant.path=.*: no effect on quant=none"),
        ("quant=recipe quant.path={} quant.skip=[proj_out]", "a recipe names every module"),
    ],
)
def test_keys_that_contradict_are_refused(recipe, line, message):
    with pytest.raises(ConfigError, match=message):
        plan(compose([*FEW, *line.format(recipe()).split()]))


def test_groups_that_do_not_divide_name_the_module(recipe):
    quant = composed(recipe(group_size=40)).quant
    message = (
        r"recipe.yaml: HQQ cannot cut model.* into whole groups of group_size: 40: set a divisor, or give the module"
    )
    with pytest.raises(ConfigError, match=message) as caught:
        quantize(load_nano(), quant)
    assert "quant." not in str(caught.value)  # the fix is in the file


@pytest.mark.parametrize("method", ["rtn", "hqq", "gptq"])
def test_a_group_size_that_the_layer_does_not_take_names_the_key_of_the_file(recipe, method):
    config = composed(recipe(method, group_size=50), "calibration.source=disjoint")
    with pytest.raises(ConfigError, match=r"recipe\.yaml: group_size: 50: HQQ's layer takes multiples of 8: set one"):
        plan([config])


@pytest.mark.parametrize("method", ["rtn", "hqq", "gptq"])
def test_an_export_needs_neither_recipe_nor_data(recipe, tmp_path, method):
    path = recipe(method)
    config = composed(path, "calibration.source=disjoint", f"export.dir={tmp_path / 'out'}")
    result = run_cell(config)
    assert result.exported.problem is None
    assert result.record.fingerprints["recipe"]
    (tmp_path / "recipe.yaml").unlink()
    [folder] = (tmp_path / "out").iterdir()
    model, _ = load(folder)
    stated = json.loads((folder / "quantlab.json").read_text())["quant"]
    assert stated["modules"] == read(recipe(method)).modules
    for item in result.record.receipt.modules:
        module = model.get_submodule(item.name)
        assert getattr(module, "meta", {}).get("nbits") == expected(item.name)
