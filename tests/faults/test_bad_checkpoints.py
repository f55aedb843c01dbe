"""A checkpoint that is not sound is refused by name, and nothing in it is executed."""

import json
import pickle
import shutil

import pytest
from safetensors.torch import load_file, save_file

from quantlab import models, storage

LAYER = "model.encoder.layers.0.fc1.weight"
CELL = ("model.name=mine", "device=cpu", "dataset.limit=1", "protocol=quick", "tracking=off")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(models.ASSETS / "nano", tmp_path / "checkpoint")


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def spoil(tensors):
    tensors[LAYER].view(-1)[7:8].fill_(float("nan"))


TENSORS = {  # what was done to the tensors, and what is said of it
    "missing": (lambda tensors: tensors.pop(LAYER), f"it lacks {LAYER}"),
    "extra": (lambda tensors: tensors.update(surplus=tensors[LAYER][:2].clone()), "not the model's: surplus"),
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
        assert f"{folders[name]} is no sound checkpoint: " in record.reason
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
