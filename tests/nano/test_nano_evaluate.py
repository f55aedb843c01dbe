"""Scoring: by group, and both with and without the normaliser."""

import pytest

from training.nano import evaluate


def row(split, text, speaker, snr_db=None):
    noise = None if snr_db is None else "white"
    return {
        "split": split, "text": text, "speaker": speaker, "seen_voice": True,
        "noise": noise, "snr_db": snr_db, "reverb": None,
    }  # fmt: skip


def test_a_string_of_digits_is_one_word_to_the_normaliser_and_many_as_spoken():
    spoken, heard = ["one two three four"], ["one two three five"]
    assert evaluate.wer(spoken, heard) == pytest.approx(100)
    assert evaluate.wer_spoken(spoken, heard) == pytest.approx(25)


def test_breakdown_by_hand():
    rows = [row("clean", "the dog ran", "a"), row("other", "the cat sat", "b", 5), row("other", "a red hat", "a", 10)]
    scores = evaluate.breakdown(rows, ["the dog ran", "the cat", "a red hat"])
    assert scores["clean"] == {"wer": 0, "wer_spoken": 0, "utterances": 1}
    assert scores["other"]["wer"] == pytest.approx(100 / 6, abs=0.01)
    assert scores["other/snr_db=5"]["wer"] == pytest.approx(100 / 3, abs=0.01)
    assert scores["other/speaker=a"]["wer"] == 0
    assert scores["other/noise=white"]["utterances"] == 2
    assert "clean/noise=None" not in scores
