"""A folder that is not as it was written is refused by name, and nothing in it is ever run."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.exporting import parsed
from quantlab.export import load
from quantlab.export.manifest import NAME, WEIGHTS, digests
from quantlab.util.errors import ConfigError, ExportError

MODULE = "model.decoder.layers.0.fc1"
TENSOR = f"{MODULE}.W_q"


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of an export to spoil."""
    return shutil.copytree(exported("hqq_int4")[1], tmp_path / "copy")


def manifest_of(folder):
    return json.loads((folder / NAME).read_text())


def rewrite(folder, **changes):
    (folder / NAME).write_text(json.dumps(manifest_of(folder) | changes))


def sign(folder, **changes):
    """As whoever changes files on purpose would: with digests that fit."""
    rewrite(folder, files=digests(folder), **changes)


def retensor(folder, change, layouts=()):
    """Change the tensors, and let manifest and digests say so."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    said = manifest_of(folder)["tensors"]
    for name, layout in dict(layouts).items():
        said[name] = layout
        if layout is None:
            del said[name]
    sign(folder, tensors=said)


def refused(folder, *words):
    with pytest.raises((ExportError, ConfigError)) as error:
        load(folder)
    for word in words:
        assert word in str(error.value)


def test_an_untouched_copy_loads(folder):
    model, _ = load(folder)
    assert type(model.get_submodule(MODULE)).__name__ == "HQQLinear"


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", "quantlab.json", "export.dir")


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    refused(folder, "lacks", name)


def test_a_file_too_many(folder):
    (folder / "added_tokens.json").write_text("{}")
    refused(folder, "has unlisted files", "added_tokens.json")


@pytest.mark.parametrize("name", [WEIGHTS, "generation_config.json"])
def test_one_other_byte(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    refused(folder, "has changed files", name)


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "a/b", "..", ".hidden", "a\nb", "x" * 4000, "", "C:\\x", "con\x00"]
)
def test_a_name_that_is_no_file_of_the_folder(folder, path):
    rewrite(folder, files={**manifest_of(folder)["files"], path: "0" * 64})
    refused(folder, "files", "manifest of format 1")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 2}, "format"),
        ({"run": "rm -rf /"}, "run"),
        ({"device": "tpu"}, "device"),
        ({"modules": "all"}, "modules"),
        ({"quant": {"name": "x"}}, "quant.library"),
        ({"decoding": {}}, "decoding"),
        ({"tensors": {"a": 1}}, "tensors"),
    ],
)
def test_a_manifest_of_another_form(folder, change, word):
    rewrite(folder, **change)
    refused(folder, word)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x80"])
def test_a_manifest_that_is_none(folder, text):
    (folder / NAME).write_bytes(text.encode("latin-1"))
    refused(folder, NAME)


def test_a_library_that_does_not_exist(folder):
    rewrite(folder, quant=manifest_of(folder)["quant"] | {"library": "hqqq"})
    refused(folder, "hqqq", "did you mean 'hqq'")


def test_another_library_than_that_of_the_tensors(folder):
    rewrite(folder, quant=parsed("bnb_nf4").model_dump(mode="json"))
    refused(folder, "lacks", ".weight", "has extra tensors", ".W_q")


def test_another_group_size_than_that_of_the_tensors(folder):
    rewrite(folder, quant=manifest_of(folder)["quant"] | {"group_size": 32})
    refused(folder, "another type or shape", "expected")


@pytest.mark.parametrize("name", ["model.decoder.layers.9.fc1", "model.encoder.conv1", "__class__", ""])
def test_a_module_that_is_no_linear_of_the_model(folder, name):
    rewrite(folder, modules=[*manifest_of(folder)["modules"], name])
    refused(folder, "no Linear of this model")


def test_a_missing_tensor(folder):
    retensor(folder, lambda tensors: tensors.pop(TENSOR))
    refused(folder, "lacks", TENSOR)
    retensor(folder, lambda tensors: None, {TENSOR: None})
    refused(folder, "lacks", TENSOR)


def test_a_tensor_too_many(folder):
    extra = f"{MODULE}.extra"
    retensor(folder, lambda tensors: tensors.update({extra: torch.zeros(3)}), {extra: "float32 [3]"})
    refused(folder, "has extra tensors", extra)


@pytest.mark.parametrize(
    ("name", "other", "layout"),
    [
        (TENSOR, torch.zeros(4, 4, dtype=torch.uint8), "uint8 [4, 4]"),
        (TENSOR, torch.zeros(1, dtype=torch.float32), "float32 [1]"),
        ("model.decoder.layer_norm.weight", torch.zeros(7), "float32 [7]"),
        ("model.decoder.layer_norm.weight", torch.zeros(192, dtype=torch.int64), "int64 [192]"),
    ],
)
def test_a_tensor_of_another_type_or_shape(folder, name, other, layout):
    retensor(folder, lambda tensors: tensors.update({name: other}))
    refused(folder, "another type or shape", name)  # than the manifest says
    retensor(folder, lambda tensors: None, {name: layout})
    refused(folder, "another type or shape", name)  # than the library has


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_model": 384, "encoder_layers": 1}, ("another type or shape", "no Linear")),
        ({"d_model": 384}, ("another type or shape",)),
        ({"d_model": 3 * 10**6}, ("d_model=3000000",)),
        ({"encoder_attention_heads": 7}, ("cannot be loaded",)),
        ({"d_model": "wide"}, ("d_model=",)),
        ({"model_type": "bert"}, ("model_type",)),
    ],
)
def test_an_architecture_that_is_not_that_of_the_tensors(folder, change, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    sign(folder)
    with pytest.raises((ExportError, ConfigError)) as error:
        load(folder)
    assert str(folder) in str(error.value) or "no Linear" in str(error.value)
    assert any(word in str(error.value) for word in words)


def test_a_pickle_is_not_opened(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "boom"), "w")

    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb()))
    sign(folder)
    refused(folder, WEIGHTS, "cannot be read")
    assert not (tmp_path / "boom").exists()


def test_code_beside_the_model_is_not_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config | code))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'boom')!r}, 'w')")
    sign(folder)
    load(folder)
    assert not (tmp_path / "boom").exists()


def test_traits_of_another_library(folder):
    rewrite(folder, traits={"model.nowhere": {"quantizes_output": True}})
    refused(folder, "no Linear of this model", "model.nowhere")
