"""Files by their content: what is remembered, and when it is read again."""

import json
import os
import shutil
from pathlib import Path

import pytest

from quantlab import models
from quantlab.config.schema import ModelConfig
from quantlab.util import files
from quantlab.util.files import Digests, opened


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settled(monkeypatch):
    """As if every file had been written long ago."""
    monkeypatch.setattr(files, "SETTLED_NS", -(10**18))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "speech" / "a.wav"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


def digest(path):
    with Digests() as digests:
        return digests.of(path)


def pretend(cache, name, told):
    """Overwrite what is remembered: who gives it back has not read the file."""
    [place] = (cache / "digests").iterdir()
    known = json.loads(place.read_text())
    known[name] = [*known[name][:-1], told]
    place.write_text(json.dumps(known))


def test_what_is_still_the_same_is_not_read_again(cache, path, settled):
    digest(path)
    pretend(cache, "a.wav", "remembered")
    assert digest(path) == "remembered"


@pytest.mark.parametrize("how", ["write", "copy", "rename"])
def test_other_bytes_of_the_same_size_and_time_are_read(cache, path, settled, how):
    before, state = digest(path), path.stat()
    pretend(cache, "a.wav", "remembered")
    other = path.with_name("other")
    other.write_bytes(b"two")
    {"write": lambda: path.write_bytes(b"two"), "copy": lambda: shutil.copyfile(other, path),
     "rename": lambda: other.replace(path)}[how]()  # fmt: skip
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert digest(path) not in (before, "remembered")


def test_what_changed_just_now_is_not_remembered(cache, path):
    """It may change again before the clock of its file system moves on."""
    digest(path)
    assert not (cache / "digests").exists()


@pytest.mark.parametrize("garbled", ["", "{", "[]", '{"a.wav": 3}', '{"a.wav": []}', '{"a.wav": [1, 2, 3, 4, "x"]}'])
def test_a_garbled_memory_is_none(cache, path, settled, garbled):
    expected = digest(path)
    [place] = (cache / "digests").iterdir()
    place.write_text(garbled)
    assert digest(path) == expected


def test_a_cache_that_cannot_be_written_only_costs_time(cache, path, settled):
    cache.write_text("no folder")
    assert len(digest(path)) == 64


def test_only_regular_files_of_a_bounded_size(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    for other, why in ((tmp_path / "pipe", "not a regular file"), (Path("/dev/zero"), "not a regular file")):
        with pytest.raises(OSError, match=why), opened(other):
            pass
    with pytest.raises(OSError, match="3 bytes, but at most 2 are read"), opened(path, 2):
        pass
    with opened(path, 3) as file:
        assert file.read() == b"one"


def test_a_checkpoint_of_the_same_size_and_time_is_another_one(tmp_path):
    folder = shutil.copytree(models.ASSETS / "nano", tmp_path / "nano")
    config = ModelConfig(name="nano", source="shipped", path=str(folder))
    before = models.fingerprint(config, 0)
    weights = folder / "model.safetensors"
    state, stored = weights.stat(), weights.read_bytes()
    weights.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert models.fingerprint(config, 0) != before
