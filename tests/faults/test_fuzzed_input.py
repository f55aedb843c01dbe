"""Manifests, transcripts, configurations and command lines at random: a corpus, a cell, or an explained refusal."""

import copy
import json

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from helpers.damage import damaged, tried
from quantlab.config.compose import compose
from quantlab.config.parse import parse_config
from quantlab.config.schema import DatasetConfig, RunConfig
from quantlab.data import open_corpus
from quantlab.util.errors import ConfigError

RATE = 16_000  # Hz
MANY = tried(5)


def refusal(call, *arguments):
    """The message, or None; any other exception is the failure that these tests look for."""
    try:
        call(*arguments)
    except ConfigError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def resolved():
    return compose([])[0].model_dump()


@MANY
@given(data=st.data())
def test_a_configuration(resolved, data):
    found = damaged(data, copy.deepcopy(resolved))
    if not isinstance(found, dict):
        return  # what Hydra composes is a mapping
    message = refusal(parse_config, found)
    if message is None:
        assert isinstance(parse_config(found), RunConfig)
    else:
        for line in message.split("\n"):
            assert len(line) < 700  # as long as the list of the keys of `dataset`
            assert "RunConfig" not in line, "what a user reads is about keys, not about classes"


WORDS = st.text(max_size=12) | st.sampled_from(["quant=", "-m", "seed=1,2", "~seed", "+a.b=1", "quant=[", "${", "--"])


@tried(0.6)
@given(st.lists(WORDS, max_size=3))
def test_a_command_line(arguments):
    refusal(compose, [word for word in arguments if word not in ("-h", "-i", "-c")])


@pytest.fixture
def folder(tmp_path):
    soundfile.write(tmp_path / "a.wav", [0.0] * 160, RATE)
    return tmp_path


def opened(path, source="manifest"):
    return open_corpus(DatasetConfig(name="fuzzed", source=source, path=str(path)))


@MANY
@given(data=st.data())
def test_a_manifest(folder, data):
    rows = [{"audio": "a.wav", "text": "x", "id": str(number), "speaker": "s", "split": "one"} for number in range(3)]
    found = damaged(data, rows)
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (found if isinstance(found, list) else [found])))
    message = refusal(opened, path)
    assert message is None or "manifest.jsonl" in message or "dataset 'fuzzed'" in message
    assert message is None or len(message) < 1000


@MANY
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
def test_bytes_as_a_manifest(folder, content):
    path = folder / "manifest.jsonl"
    path.write_bytes(content)
    message = refusal(opened, path)
    assert message is not None  # chance writes no line with audio that exists
    assert "manifest.jsonl" in message or "dataset 'fuzzed'" in message


@MANY
@given(content=st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
def test_bytes_as_a_transcript(tmp_path, content):
    chapter = tmp_path / "LibriSpeech" / "test-clean" / "61" / "70968"
    chapter.mkdir(parents=True, exist_ok=True)
    soundfile.write(chapter / "61-70968-0000.flac", [0.0] * 160, RATE)
    (chapter / "61-70968.trans.txt").write_bytes(content)
    message = refusal(opened, tmp_path / "LibriSpeech", "librispeech_dir")
    assert message is None or "61-70968.trans.txt" in message or "dataset 'fuzzed'" in message
