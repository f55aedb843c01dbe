"""A checkpoint's files at random: a model that decodes, or one line; nothing hangs, nothing else is raised."""

import json
import shutil
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.damage import JUNK, damaged, tried
from quantlab import models
from quantlab.config.schema import ModelConfig
from quantlab.models import folder as folders
from quantlab.util.errors import ConfigError

pytestmark = pytest.mark.fuzz
NANO = models.ASSETS / "nano"
FILES = ("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json")
INDEX = "model.safetensors.index.json"
# what is in a tokenizer's vocabulary is too much to be drawn from: these parts of it are damaged
PARTS = {"tokenizer.json": ("added_tokens", "model", "pre_tokenizer", "decoder", "post_processor", "normalizer")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The shipped checkpoint; its weights are a link, and are never written to."""
    made = tmp_path_factory.mktemp("fuzzed") / "checkpoint"
    made.mkdir()
    (made / "model.safetensors").symlink_to(NANO / "model.safetensors")
    return made


def restore(folder):
    for file in FILES:
        shutil.copy(NANO / file, folder)
    (folder / INDEX).unlink(missing_ok=True)


def refusal(call, folder):
    """The message, or None; any other exception is the failure that these tests look for."""
    try:
        call(ModelConfig(name="fuzzed", source="hub", path=str(folder)), 0)
    except ConfigError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 1500
        assert str(folder) in message or "special" in message or "tokenizer" in message
        return message
    return None


def spoil(data, folder, file):
    content = json.loads((NANO / file).read_text())
    for part in PARTS.get(file, ()):
        if data.draw(st.booleans()):
            content[part] = damaged(data, content[part]) if part != "model" else data.draw(JUNK)
    if file not in PARTS:
        content = damaged(data, content)
    (folder / file).write_text(json.dumps(content))


@tried(5)
@given(data=st.data())
def test_json_is_looked_at_before_anything_is_loaded(folder, data):
    restore(folder)
    for file in data.draw(st.sets(st.sampled_from(FILES), min_size=1, max_size=2)):
        spoil(data, folder, file)
    refusal(models.fingerprint, folder)


@tried(0.25)
@given(data=st.data())
def test_what_passes_decodes_as_the_intact_folder_or_is_refused(folder, data):
    """With the libraries that load it: a model, its extractor and its tokenizer, or one line."""
    restore(folder)
    spoil(data, folder, data.draw(st.sampled_from(FILES)))
    refusal(models.load, folder)


KEYS = sorted(json.loads((NANO / "generation_config.json").read_text()))
VALUES = st.none() | st.booleans() | st.integers(-1, 600) | st.lists(st.integers(-1, 600), max_size=3) | JUNK


@tried(0.5)
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3), without=st.sets(st.sampled_from(KEYS)))
def test_a_generation_config_changes_no_prompt(folder, changes, without):
    restore(folder)
    said = json.loads((NANO / "generation_config.json").read_text()) | changes
    (folder / "generation_config.json").write_text(json.dumps({k: v for k, v in said.items() if k not in without}))
    try:
        found = folders.check(folder)
    except ConfigError:
        return
    expected = folders.check(NANO)
    for name in ("start", "end", "no_times", "languages", "tasks", "control"):
        assert getattr(found, name) == getattr(expected, name)


@tried(2)
@given(data=st.data())
def test_an_index(folder, data):
    restore(folder)
    (folder / "model.safetensors").unlink()
    try:
        index = {"metadata": {"total_size": 1}, "weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}
        (folder / INDEX).write_text(json.dumps(damaged(data, index)))
        assert refusal(models.fingerprint, folder) is not None  # no shard of it is there
    finally:
        (folder / "model.safetensors").symlink_to(NANO / "model.safetensors")


@tried(0.25)
@given(data=st.data())
def test_a_header_of_safetensors(folder, data):
    """Damaged, or of another length than it says; the tensors themselves are those of the shipped checkpoint."""
    restore(folder)
    raw = (NANO / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(header)))
        header[name] = damaged(data, header[name])
    else:
        header = damaged(data, header)
    encoded = json.dumps(header).encode()
    said = data.draw(st.sampled_from([len(encoded), 0, 1, 2**40, 2**64 - 1]))
    (folder / "model.safetensors").unlink()
    try:
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", said) + encoded + raw[8 + size :])
        refusal(models.load, folder)
    finally:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(NANO / "model.safetensors")


@tried(5)
@given(file=st.sampled_from(FILES), content=st.binary(max_size=200))
def test_bytes_for_json(folder, file, content):
    restore(folder)
    (folder / file).write_bytes(content)
    assert refusal(models.fingerprint, folder) is not None or content.strip() == b"{}"
