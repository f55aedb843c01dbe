"""A checkpoint that is not sound is refused by name, and nothing in it is executed."""

import json
import os
import pickle
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantlab import models
from quantlab.config.compose import compose
from quantlab.config.schema import ModelConfig
from quantlab.grid.plan import plan
from quantlab.records import storage
from quantlab.util.errors import CheckpointError, ConfigError

EMBEDDING = "model.decoder.embed_tokens.weight"
LAYER = "model.encoder.layers.0.fc1.weight"
CELL = ("model.name=mine", "device=cpu", "dataset.limit=1", "protocol=quick", "tracking=off")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(models.ASSETS / "nano", tmp_path / "checkpoint")


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(path, **keys):
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def spoil(tensors):
    tensors[LAYER].view(-1)[7:8].fill_(float("nan"))


TENSORS = {  # what was done to the tensors, and what is said of it
    "missing": (lambda tensors: tensors.pop(LAYER), f"it lacks {LAYER}"),
    "extra": (lambda tensors: tensors.update(surplus=tensors[LAYER][:2].clone()), "the model does not have: surplus"),
    "nan": (spoil, f"NaN or infinite values in {LAYER}"),
    "shape": (lambda tensors: tensors.update({LAYER: tensors[LAYER][:3].clone()}), f"than config.json says: {LAYER}"),
}


def test_wrong_tensors_are_named_in_a_row_of_their_own(quantlab, tmp_path):
    """Of several checkpoints in one grid, those that are not sound fail, the sound one is measured."""
    folders = {name: shutil.copytree(models.ASSETS / "nano", tmp_path / name) for name in ("sound", *TENSORS)}
    for name, (change, _) in TENSORS.items():
        edit(folders[name], change)
    done = quantlab("-m", f"model.path={','.join(map(str, folders.values()))}", *CELL)
    assert done.returncode == 1
    found = {record.config["model"]["path"]: record for record in storage.read_all(tmp_path / "mlruns")}
    assert found.pop(str(folders["sound"])).status == "ok"
    for name, (_, says) in TENSORS.items():
        record = found[str(folders[name])]
        assert record.status == "failed"
        assert f"{folders[name]} is not a valid checkpoint: " in record.reason
        assert says in record.reason
        assert says in done.stdout.replace("\n", " ")


class Evil:
    """What runs code when it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return open, (str(self.witness), "w")


def test_a_pickle_is_refused_before_anything_runs(quantlab, folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    done = quantlab(f"model.path={folder}", *CELL)
    assert done.returncode == 2
    assert f"{folder} has only pytorch_model.bin, a pickle, which can run any code when it is read" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_that_is_called_safetensors_is_not_read_as_one(folder, tmp_path, protocol):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol))
    with pytest.raises(models.ConfigError, match=r"checkpoint cannot be loaded: Safetensor"):
        models.load(models.ModelConfig(name="mine", source="hub", path=str(folder)), 0)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_left_alone(folder, tmp_path):
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl"):
        (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    models.load(models.ModelConfig(name="mine", source="hub", path=str(folder)), 0)
    assert not (tmp_path / "ran").exists()


def test_a_shard_outside_the_folder_is_not_read(folder, tmp_path):
    shutil.move(folder / "model.safetensors", tmp_path / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": {LAYER: "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(models.ConfigError, match=r"lacks \.\./elsewhere\.safetensors"):
        models.fingerprint(models.ModelConfig(name="mine", source="hub", path=str(folder)), 0)


# what no library is to see


def index_of(folder, named):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": named}))


NAMED = ["pytorch_model-00001.bin", "x.PKL", "x.pt", "/etc/passwd", 7, None, ["x.safetensors"], "a\n.safetensors", ""]


@pytest.mark.parametrize("name", NAMED, ids=map(repr, NAMED))
def test_an_index_names_safetensors_and_nothing_else(name, folder, tmp_path):
    for pickled in ("pytorch_model-00001.bin", "x.PKL", "x.pt"):
        (folder / pickled).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    index_of(folder, {LAYER: name, "other": "model-00001-of-00001.safetensors"})
    for call in (models.load, models.fingerprint):
        assert_refused(call, folder, "only .safetensors are read of a checkpoint")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["../elsewhere.safetensors", "/elsewhere.safetensors", "sub/x.safetensors"])
def test_a_shard_is_in_the_folder_itself(path, folder):
    index_of(folder, {LAYER: path})
    assert_refused(models.fingerprint, folder, "which model.safetensors.index.json names")


def test_a_config_cannot_name_other_weights(folder, tmp_path):
    """Neither a pickle nor safetensors that the fingerprint does not know."""
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    (folder / "x.bin").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    for name, says in (("other.safetensors", "transformers_weights"), ("x.bin", "transformers_weights")):
        edit_json(folder / "config.json", transformers_weights=name)
        assert_refused(models.load, folder, says)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "processor_config.json"])
def test_no_file_names_a_pickle(file, folder):
    edit_json(folder / file, custom={"deep": ["weights/x.ckpt"]})
    assert_refused(models.fingerprint, folder, f"{file} names 'weights/x.ckpt': only .safetensors")


def test_kernels_of_the_hub_are_not_fetched(folder):
    edit_json(folder / "config.json", attn_implementation="kernels-community/flash-attn")
    assert_refused(models.fingerprint, folder, "attn_implementation='kernels-community/flash-attn'")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.float8_e4m3fn])
def test_integers_are_no_weights(dtype, folder):
    edit(folder, lambda tensors: tensors.update({LAYER: (tensors[LAYER] * 50).to(dtype)}))
    assert_refused(models.fingerprint, folder, f"'{LAYER}' is stored as ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_is_read_as_fp32(dtype, folder):
    edit(folder, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    assert {item.dtype for item in at(folder, models.load).model.parameters()} == {torch.float32}


def test_a_head_of_its_own_is_not_dropped(folder):
    edit(folder, lambda tensors: tensors.update({"proj_out.weight": tensors[EMBEDDING] / 2}))
    model = at(folder, models.load).model
    assert torch.equal(model.proj_out.weight, model.model.decoder.embed_tokens.weight / 2)


# files that are no files


def pipe(path):
    os.mkfifo(path)


FILES = ["config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json", "tokenizer.json",
         "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "model.safetensors",
         "model.safetensors.index.json"]  # fmt: skip
NO_FILES = {
    "pipe": pipe,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "nowhere": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("file", FILES)
def test_only_regular_files_are_opened(kind, file, folder):
    (folder / file).unlink(missing_ok=True)
    if file.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    NO_FILES[kind](folder / file)
    assert_refused(
        models.fingerprint,
        folder,
        "cannot be read: not a regular file" if kind != "nowhere" else "cannot be read: No such",
    )


BAD_JSON = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "cut": '{"model_type": "whis',
    "binary": "\x00\x01",
    "digits": '{"vocab_size": ' + "9" * 10_000 + "}",
    "a list": "[1]",
    "a number": "7",
    "nothing": "",
}


@pytest.mark.parametrize("content", BAD_JSON.values(), ids=BAD_JSON.keys())
@pytest.mark.parametrize(
    "file", [name for name in FILES if name.startswith(("config", "gen", "processor", "tokenizer"))]
)
def test_json_that_no_checkpoint_has(file, content, folder):
    (folder / file).write_text(content)
    assert_refused(models.load, folder, str(folder))


def test_a_file_without_end_is_not_read(folder):
    for file in ("config.json", "tokenizer.json"):
        with (folder / file).open("r+") as opened:
            opened.truncate(1 << 40)  # takes no room
        assert_refused(models.fingerprint, folder, "bytes, but at most 67,108,864 are read")


NUMBERS = [0, -1, 10**30, 1e999, float("nan"), 2.5, True, "192", None, []]


@pytest.mark.parametrize("value", NUMBERS, ids=map(repr, NUMBERS))
@pytest.mark.parametrize("key", ["d_model", "vocab_size", "encoder_layers", "decoder_ffn_dim", "max_target_positions"])
def test_a_shape_is_whole_numbers_within_reason(key, value, folder):
    edit_json(folder / "config.json", **{key: value})
    assert_refused(models.fingerprint, folder, f"{key}=")
    with pytest.raises(CheckpointError, match=f"{key}="):  # of a shape alone, too
        models.load(ModelConfig(name="mine", source="hub", path=str(folder), weights="random"), 0)


FRONT_ENDS = [
    ({"n_fft": 512}, "n_fft=512; Whisper's has 400"),
    ({"hop_length": 80}, "hop_length=80; Whisper's has 160"),
    ({"sampling_rate": 8000}, "sampling_rate=8000; Whisper's has 16000"),
    ({"padding_value": 1.0}, "padding_value=1.0; Whisper's has 0.0"),
    ({"padding_side": "left"}, "padding_side='left'; Whisper's has right"),
    ({"dither": 0.5}, "dither=0.5; Whisper's has 0.0"),
    ({"feature_size": 128}, "makes 128 mel bins, the model takes 80"),
    ({"chunk_length": 30}, "makes 3000 frames (chunk_length=30), the model takes 600"),
]


@pytest.mark.parametrize(("change", "says"), FRONT_ENDS, ids=[next(iter(change)) for change, _ in FRONT_ENDS])
def test_features_are_those_the_model_was_trained_on(change, says, folder):
    path = folder / "processor_config.json"
    said = json.loads(path.read_text())
    edit_json(path, feature_extractor=said["feature_extractor"] | change)
    assert_refused(models.load, folder, says)


def test_a_tokenizer_of_another_kind(folder):
    edit_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    edit_json(folder / "processor_config.json", tokenizer_class="GPT2Tokenizer")
    assert_refused(models.load, folder, "not a WhisperTokenizer")


# what people give instead


def adapter(path):
    (path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "openai/whisper-small", "peft_type": "LORA"}'
    )
    (path / "adapter_model.safetensors").touch()


def adapter_beside_its_base(path):
    shutil.copytree(models.ASSETS / "nano", path, dirs_exist_ok=True)
    adapter(path)


def ctranslate2(path):
    for name in ("model.bin", "vocabulary.json"):
        (path / name).touch()
    (path / "config.json").write_text('{"suppress_ids": []}')


def several(path):
    shutil.copytree(models.ASSETS / "nano", path / "checkpoint-500")


FOLDERS = [
    (adapter, "is an adapter of openai/whisper-small: merge it first"),
    (adapter_beside_its_base, "is an adapter of openai/whisper-small: merge it first"),
    (ctranslate2, "has a model.bin that is not a CTranslate2 Whisper model"),
    (
        lambda path: shutil.copytree(models.ASSETS / "nano", path / "snapshots" / "abc"),
        "give its snapshot, model.path=",
    ),
    (several, "1 of its folders have: give one of them, e.g. model.path="),
    (lambda path: (path / "q8.gguf").touch(), "has 'q8.gguf', a file of GGUF"),
    (lambda path: (path / "weights.npz").touch(), "is an MLX model"),
    (lambda path: (path / "encoder.onnx").touch(), "has 'encoder.onnx', a file of ONNX"),
    (lambda path: (path / "pytorch_model.bin").touch(), "has no config.json"),
    (lambda path: None, "has no config.json"),
]


@pytest.mark.parametrize(("make", "says"), FOLDERS, ids=[says for _, says in FOLDERS])
def test_a_folder_of_something_else(make, says, tmp_path):
    (made := tmp_path / "given").mkdir()
    make(made)
    assert_refused(models.fingerprint, made, says)


GIVEN = {
    b"lmgg\x00\x00": "cannot be read as a model of whisper.cpp: it is truncated",
    b"GGUF\x03": "is a GGUF file",
    b"PK\x03\x04": "cannot be read as a model of OpenAI: its archive is broken",
    b"\x80\x04": "a pickle can run any code when it is read: convert it where it is trusted",
    b"": "is a file; expected a folder",
}


@pytest.mark.parametrize(("start", "says"), GIVEN.items(), ids=GIVEN.values())
def test_a_file_instead_of_a_folder(start, says, tmp_path):
    (tmp_path / "given").write_bytes(start)
    with pytest.raises(ConfigError, match=re.escape(says)):
        at(tmp_path / "given", models.fingerprint)


def test_a_name_of_the_hub_instead_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"model=base model\.repo=openai/whisper-base model\.revision=null"):
        at("openai/whisper-base", models.fingerprint)


# a bad checkpoint among good ones


def test_a_bad_checkpoint_is_a_row(tmp_path):
    """The plan goes on; where all are bad, their reasons are what is said."""
    paths = {}
    for name, change in {
        "good": lambda folder: None,
        "number": lambda folder: index_of(folder, {LAYER: 7}),
        "deep": lambda folder: (folder / "config.json").write_text(BAD_JSON["deep"]),
        "pickle": lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "adapter": adapter,
    }.items():
        paths[name] = shutil.copytree(models.ASSETS / "nano", tmp_path / name)
        change(paths[name])
    cells = planned(paths.values(), "quant=none,torch_int8")
    assert [cell.refusal and cell.refusal.status for cell in cells] == [None] * 2 + ["failed"] * 8
    assert all("\n" not in cell.refusal.reason for cell in cells[2:])
    bad = [path for name, path in paths.items() if name != "good"]
    with pytest.raises(ConfigError) as refused:
        planned(bad, "quant=none,torch_int8")
    assert len(str(refused.value).splitlines()) == len(bad)


def test_a_language_is_looked_at_before_loading(tmp_path):
    english = shutil.copytree(models.ASSETS / "nano", tmp_path / "english")
    german = shutil.copytree(models.ASSETS / "nano", tmp_path / "german")
    (german / "tokenizer.json").write_text((german / "tokenizer.json").read_text().replace("<|en|>", "<|de|>"))
    edit_json(german / "generation_config.json", lang_to_id={"<|de|>": 505})
    asked = ("quant=none,ggml_f16,ct2_float32", "dataset.language=de")
    cells = planned([english, german], *asked)
    assert [cell.refusal and cell.refusal.status for cell in cells] == ["unsupported"] * 3 + [None] * 3
    assert cells[0].refusal.reason == "dataset.language=de: model english has no such language; it knows en"
    with pytest.raises(ConfigError, match=r"it knows en$"):
        planned([english], *asked)


def planned(paths, *arguments):
    return plan(
        compose(["-m", f"model.path={','.join(map(str, paths))}", *arguments, "device=cpu", "device.threads=1"])
    )


def at(folder, call):
    return call(ModelConfig(name="mine", source="hub", path=str(folder)), 0)


def assert_refused(call, folder, says):
    with pytest.raises(CheckpointError, match=re.escape(says)) as refused:
        at(folder, call)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000
