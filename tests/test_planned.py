"""A cell's process is given what the grid has found out, and measures nothing else: what changes meanwhile fails it."""

import hashlib
import json
import pickle
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile
from safetensors import numpy as tensors

from quantlab.config.compose import compose
from quantlab.grid.attempt import Failure, attempt
from quantlab.grid.plan import plan
from quantlab.models import shipped
from quantlab.util import files

OPTIONS = ("dataset=manifest", "device=cpu", "device.threads=1", "protocol=quick", "tracking=off")
RATE = 16_000
READER = """
from quantlab.data import Utterance
from quantlab.data.readers.manifest import read_manifest

class Called:
    def __init__(self, path): self.path = path
    def __call__(self): return self.path.read_bytes()

def read(dataset):
    [item] = read_manifest(dataset)["test"]
    return {"test": [Utterance(item.id, "test", item.text, None, Called(item.audio.path), item.digest)]}
"""


def sound(path, seed):
    soundfile.write(path, np.random.default_rng(seed).normal(size=RATE).astype(np.float32) / 10, RATE)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkpoint, a corpus with noise, and another package's reader, which may all be changed; a cache of its own."""
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "SETTLED_NS", 0)  # they were written just now
    (tmp_path / "model").mkdir()
    for file in shipped("nano").iterdir():
        if file.suffix in (".json", ".safetensors"):
            (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "noise").mkdir()
    sound(tmp_path / "noise" / "hum.wav", 1)
    sound(tmp_path / "a.wav", 2)
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "then"}) + "\n")
    (tmp_path / "theirs_reader.py").write_text(READER)
    (tmp_path / "theirs-1.0.dist-info").mkdir()
    (tmp_path / "theirs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    points = "[quantlab.datasets]\ntheirs = theirs_reader:read\n"
    (tmp_path / "theirs-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("theirs_reader", None)


def cells(place, *options):
    return plan(compose([*OPTIONS, f"model.path={place / 'model'}", f"dataset.path={place / 'm.jsonl'}", *options]))


def measured(cell, progress=lambda *_: None):
    """As the process of a cell does, which gets copies."""
    return attempt(cell.config, progress, pickle.loads(pickle.dumps(cell.identity)))


def another_checkpoint(place):
    path = place / "model" / "model.safetensors"
    weights = tensors.load_file(path)
    name = min(weights)
    tensors.save_file(weights | {name: weights[name] * 0.5}, path, metadata={"format": "pt"})


def another_line(place):
    (place / "m.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "now"}) + "\n")


NOISY = ("dataset.noise.kind=recorded", "dataset.noise.snr_db=10")
CHANGES = {
    "the checkpoint": ((), another_checkpoint, "content of the checkpoint: sha256:"),
    "audio": ((), lambda place: sound(place / "a.wav", 3), "a.wav changed after it was listed: run again"),
    "the noise": (NOISY, lambda place: sound(place / "noise" / "hum.wav", 3), "content of the corpus: "),
    "a reader": (
        ("dataset.source=theirs",),
        lambda place: (place / "theirs_reader.py").write_text(READER + "\n"),
        "version of theirs_reader (source): ",
    ),
    "what a reader calls": (("dataset.source=theirs",), another_line, "content of the corpus: "),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_another_one_than_was_planned_fails(what, place):
    options, change, reason = CHANGES[what]
    noise = [f"dataset.noise.path={place / 'noise'}"] if options == NOISY else []
    [cell] = cells(place, *options, *noise)
    change(place)
    outcome = measured(cell)
    assert isinstance(outcome, Failure), outcome
    assert reason in outcome.reason
    assert "run again" in outcome.reason


def test_a_checkpoint_that_changes_while_it_is_measured_fails(place):
    [cell] = cells(place)
    outcome = measured(cell, lambda stage, *_: another_checkpoint(place) if stage == "score" else None)
    assert isinstance(outcome, Failure), outcome
    assert outcome.reason.startswith("not the cell that was planned (content of the checkpoint: sha256:")


def test_cells_hear_the_references_that_were_fingerprinted(place):
    [cell] = cells(place)
    another_line(place)
    result = measured(cell)
    assert [item.reference for item in result.utterances] == ["then"]
    assert (result.record.cell_id, result.record.fingerprints) == (cell.id, cell.fingerprints)


def test_each_file_is_hashed_once_for_two_cells(place, monkeypatch):
    hashed, real = Counter(), hashlib.file_digest

    def counted(file, name):
        found = real(file, name)
        hashed[found.hexdigest()] += 1
        return found

    monkeypatch.setattr(hashlib, "file_digest", counted)
    for cell in cells(place, "quant=none,torch_int8"):
        assert measured(cell).record.cell_id == cell.id
    for path in (place / "model" / "model.safetensors", place / "a.wav"):
        assert hashed[hashlib.sha256(path.read_bytes()).hexdigest()] == 1
    assert set(hashed.values()) == {1}
