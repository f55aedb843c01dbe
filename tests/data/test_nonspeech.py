"""Audio in which nothing is said: what is heard in it is counted by itself, and is in no error rate."""

import json

import numpy as np
import pytest
import soundfile
from transformers import WhisperFeatureExtractor

from helpers.corpora import RATE, manifest_config, write_jsonl
from quantlab.cli.verify import verify
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus
from quantlab.data.readers.manifest import ASSETS
from quantlab.measurement.cell import run_cell
from quantlab.records import storage
from quantlab.records.figures import split_result
from quantlab.records.schema import Batch
from quantlab.report.summaries import summaries
from quantlab.scoring.score import Reference, Scoring, utterance
from quantlab.util.errors import ConfigError


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Three seconds of noise, and a sentence of the demo corpus."""
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    noise = 0.01 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "room.wav", noise, RATE)
    line = json.loads((ASSETS / "demo" / "manifest.jsonl").open().readline())
    return {"room": str(tmp_path / "room.wav"), "said": str(ASSETS / "demo" / line["audio"]), "text": line["text"]}


def manifest(tmp_path, *lines):
    entries = [{"id": str(number), "audio": audio, "text": text} for number, (audio, text) in enumerate(lines)]
    return write_jsonl(tmp_path / "m.jsonl", entries)


def run(path, tmp_path, quant="none"):
    arguments = ["dataset=manifest", f"dataset.path={path}", "dataset.nonspeech=true", f"quant={quant}", "device=cpu"]
    [config] = compose([*arguments, "device.threads=1", "device.pin=false", "protocol.warmup_batches=0"])
    found = run_cell(config)
    storage.write(tmp_path / "runs", found)
    return found


@pytest.mark.parametrize("text", ["", "[silence]", "..."])
def test_unless_asked_for_they_are_left_out_and_named(clips, tmp_path, text):
    extractor = WhisperFeatureExtractor(chunk_length=6)
    corpus = open_corpus(manifest_config(manifest(tmp_path, (clips["room"], text), (clips["said"], clips["text"]))))
    found = features(corpus, extractor)
    assert found.splits["test"].ids == ("1",)
    assert [(item.utterance, item.kind) for item in found.problems] == [("0", "empty reference")]
    assert "dataset.nonspeech=true" in found.problems[0].detail
    with pytest.raises(ConfigError, match=r"dataset\.nonspeech=true counts the words"):
        features(open_corpus(manifest_config(manifest(tmp_path, (clips["room"], text)))), extractor)


def test_what_is_heard_in_them_is_no_error_of_the_corpus(clips, tmp_path):
    lines = [(clips["room"], ""), (clips["said"], clips["text"]), (clips["room"], "[silence]")]
    found = run(manifest(tmp_path, *lines), tmp_path)
    split = found.record.splits["test"]
    units = Scoring().units  # digits in a row are one word
    heard = sum(len(units(item.hypothesis)) for item in found.utterances if item.nonspeech)
    assert [item.nonspeech for item in found.utterances] == [True, False, True]
    assert (split.utterances, split.ref_words, split.nonspeech_s) == (3, len(clips["text"].split()), 6.0)
    assert (split.nonspeech_words, split.nonspeech_words_per_min) == (heard, 10 * heard)
    assert split.wer == found.utterances[1].errors / split.ref_words
    assert not [item for item in verify(tmp_path / "runs") if item.place.startswith(("splits", "utterance"))]


def test_a_corpus_of_nothing_else_has_no_error_rate_and_no_verdict(clips, tmp_path):
    path = manifest(tmp_path, *[(clips["room"], "")] * 2)
    for quant in ("none", "torch_int8"):
        split = run(path, tmp_path, quant).record.splits["test"]
        assert (split.wer, split.cer, split.empty_share, split.loop_share) == (None, None, None, None)
        assert split.nonspeech_words_per_min is not None
    found = summaries(tmp_path / "runs")
    assert [(row.wer, row.verdict, row.comparison) for row in found] == [(None, None, None)] * 2
    assert all(row.nonspeech_words_per_min is not None for row in found)


def test_counted_by_hand():
    def scored(reference, hypothesis, audio_s):
        heard = Reference(id=reference, split="test", speaker=None, audio_s=audio_s, reference=reference)
        return utterance(heard, [[1, 2]], hypothesis, limit=9)

    timed = Batch(split="test", index=0, utterances=3, audio_s=24.0, tokens=6, elapsed_s=1.0)
    heard = [("a b", "a b", 4.0), ("", "thank you", 10.0), ("<noise>", "", 10.0)]
    found = split_result([scored(*item) for item in heard], [timed])
    assert (found.wer, found.insertions, found.nonspeech_words, found.nonspeech_s) == (0.0, 0, 2, 20.0)
    assert found.nonspeech_words_per_min == 6.0
    assert found.empty_share == 0.0  # nothing is right where nothing is said
