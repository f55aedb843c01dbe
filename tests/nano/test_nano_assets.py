"""What ships: the model is a Whisper that recognises the demo, and the demo is what its manifest says."""

import json
from collections import defaultdict

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from quantlab.util.resources import ASSETS
from training.nano import corpus, roster

DEMO, NANO = ASSETS / "demo", ASSETS / "nano"


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in (DEMO / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def model():
    return WhisperForConditionalGeneration.from_pretrained(NANO).eval()


@pytest.fixture(scope="module")
def processor():
    return WhisperProcessor.from_pretrained(NANO)


@pytest.mark.parametrize("split", ["clean", "other"])
def test_each_split_has_enough_utterances_speakers_and_different_sentences(rows, split):
    mine = [row for row in rows if row["split"] == split]
    assert len(mine) >= 150
    assert len({row["speaker"] for row in mine}) >= 6
    assert len({row["text"] for row in mine}) == len(mine)


def test_the_splits_share_no_sentence(rows):
    sentences = defaultdict(set)
    for row in rows:
        sentences[row["split"]].add(row["text"])
    assert not sentences["clean"] & sentences["other"]


def test_every_file_is_as_the_manifest_says(rows):
    on_disk = {path.relative_to(DEMO).as_posix() for path in DEMO.rglob("*.ogg")}
    assert on_disk == {row["audio"] for row in rows}
    for row in rows:
        info = soundfile.info(DEMO / row["audio"])
        assert (info.samplerate, info.channels) == (16_000, 1)
        assert info.duration == pytest.approx(row["duration_s"], abs=0.002)
        assert corpus.MIN_TEST_S - 0.05 <= info.duration <= corpus.MAX_TEST_S + 0.05
        assert corpus.Item(**row).text == row["text"].lower().strip()


def test_conditions_are_those_of_their_split(rows):
    for row in rows:
        if row["split"] == "clean":
            assert (row["noise"], row["snr_db"], row["reverb"]) == (None, None, None)
        else:
            assert row["noise"] or row["reverb"]
            assert (row["noise"] is None) == (row["snr_db"] is None)


def test_unseen_voices_are_marked(rows):
    unseen = {voice.speaker for voices in roster.UNSEEN.values() for voice in voices}
    assert {row["speaker"] for row in rows if not row["seen_voice"]} <= unseen
    assert not {row["speaker"] for row in rows if row["seen_voice"]} & unseen


def test_sizes_on_disk():
    assert (NANO / "model.safetensors").stat().st_size <= 20_000_000
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 20_000_000


def test_layers_are_fit_for_groups_of_64(model):
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert all(linear.in_features % 64 == 0 for linear in linears)
    assert 2e6 <= model.num_parameters() <= 8e6


def test_the_model_recognises_the_demo(rows, model, processor):
    some = [row for row in rows if row["split"] == "clean"][:20]
    audio = [soundfile.read(DEMO / row["audio"], dtype=np.float32)[0] for row in some]
    features = processor(audio, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        ids = model.generate(features, language="en", task="transcribe")
    transcripts = [transcript.strip() for transcript in processor.batch_decode(ids, skip_special_tokens=True)]
    assert jiwer.wer([row["text"] for row in some], transcripts) < 0.15
