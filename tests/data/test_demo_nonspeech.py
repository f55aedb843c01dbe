"""The shipped audio without speech: what it is, and words per minute in it with interval and verdict."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from quantlab.analysis.nonspeech import nonspeech_evidence
from quantlab.config.compose import compose
from quantlab.data import open_corpus
from quantlab.data.readers.manifest import ASSETS
from quantlab.records.several import Stored
from training.nano.nonspeech import clips

FOLDER = ASSETS / "demo_nonspeech"
KINDS = ("silence", "room", "hum", "tones", "clicks", "music", "babble")


def lines():
    return [json.loads(line) for line in (FOLDER / "manifest.jsonl").read_text().splitlines()]


def test_it_has_ten_clips_of_each_kind_and_sentences_that_fit_the_window_of_nano():
    [config] = compose(["dataset=demo_nonspeech"])
    corpus = open_corpus(config.dataset)
    assert {name: len(split) for name, split in corpus.splits.items()} == dict.fromkeys(KINDS, 10) | {"words": 16}
    assert all((item.text == "") == (item.split != "words") for split in corpus.splits.values() for item in split)
    for line in lines():
        found = soundfile.info(FOLDER / line["audio"])
        assert (found.samplerate, found.channels, found.subtype) == (16000, 1, "PCM_16")
        assert found.frames <= 6 * 16000
        assert found.duration == pytest.approx(line["duration_s"], abs=1e-3)


def test_levels_are_those_of_the_manifest_and_silence_is_at_most_five_steps():
    for line in lines():
        samples = soundfile.read(FOLDER / line["audio"], dtype="int16")[0].astype(float)
        if line["split"] == "silence":
            assert np.abs(samples).max() <= 5
        elif line["level_db"] is not None and np.abs(samples).max() < 32000:
            level_db = 20 * np.log10(np.sqrt(np.mean(samples**2)) / 32767)
            assert level_db == pytest.approx(line["level_db"], abs=0.3)
        elif line["followed_by"] == "silence":
            assert not samples[-3 * 16000 :].any()


def test_the_files_are_those_of_the_program():
    for item, samples in clips():
        stored = soundfile.read(FOLDER / item.audio, dtype="int16")[0].astype(int)
        assert np.abs(stored - samples).max() <= 1, item.audio  # the last bit of a sine may differ


def recorded(root, cell_id, words, audio_s=6.0):
    """What the statistics read of a cell that wrote so many words in each clip."""
    folder = root / "cells" / cell_id
    folder.mkdir(parents=True)
    rows = [
        {"split": "test", "id": str(number), "speaker": None, "audio_s": audio_s, "nonspeech": True}
        | {"hypothesis": "a " * count, "insertions": count, "substitutions": 0, "deletions": 0, "hits": 0}
        for number, count in enumerate(words)
    ]
    (folder / "utterances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = SimpleNamespace(nonspeech_s=audio_s * len(words), nonspeech_words=sum(words))
    return Stored(root, SimpleNamespace(cell_id=cell_id, status="ok", splits={"test": split}))


def compared(root, words, before):
    found = [recorded(root, "cell", words), recorded(root, "base", before)]
    settings = {"cell": 2000, "base": 2000}
    return nonspeech_evidence(found, {"cell": "base", "base": "base"}, settings, pytest.fail)


def test_without_a_word_the_interval_ends_at_three_words_in_all_the_audio(tmp_path):
    found = compared(tmp_path, [0] * 20, [0] * 20)  # two minutes
    assert found["base"].ci95 == pytest.approx((0.0, 1.5))
    assert found["cell"].comparison.difference.ci95 == pytest.approx((-1.5, 1.5))
    assert found["cell"].comparison.verdict == "not shown"
    assert found["cell"].comparison.p == 1.0
    assert found["base"].comparison is None


def test_invented_words_are_shown_where_many_clips_have_them(tmp_path):
    found = compared(tmp_path, [1, 2] * 10, [0] * 20)["cell"]
    assert found.comparison.difference.value == pytest.approx(15.0)  # 30 words in two minutes
    assert found.comparison.verdict == "more"
    assert found.ci95 == found.comparison.difference.ci95
    assert 10 < found.ci95[0] < 15 < found.ci95[1] < 20


def test_a_single_burst_in_one_clip_is_not_shown_and_fewer_words_are(tmp_path):
    assert compared(tmp_path / "a", [40] + [0] * 19, [0] * 20)["cell"].comparison.verdict == "not shown"
    assert compared(tmp_path / "b", [0] * 20, [1, 2] * 10)["cell"].comparison.verdict == "fewer"
