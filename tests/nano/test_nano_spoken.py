"""When each word of the demo is said: the manifest's times, and the synthesisers that state them."""

import json

import numpy as np
import pytest
import soundfile

from quantlab.util.resources import ASSETS
from training.nano import acoustics, corpus, spoken, voices
from training.nano.voices import Request, Voice

DEMO = ASSETS / "demo"


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in (DEMO / "manifest.jsonl").read_text().splitlines()]


def test_every_word_of_the_demo_is_listed_in_order_and_nearly_all_have_times(rows):
    unknown = 0
    for row in rows:
        assert [word for word, *_ in row["words"]] == row["text"].split()
        times = [time for _, *pair in row["words"] for time in pair if time is not None]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] <= row["duration_s"]
        unknown += sum(start_s is None for _, start_s, _ in row["words"])
    assert (unknown, sum(len(row["words"]) for row in rows)) == (76, 3084)


def test_the_words_of_a_recording_end_where_its_sound_does(rows):
    """Silence at the ends was cut by what is heard, so that this is another witness of the last word's end."""
    tails_s = [row["duration_s"] - row["words"][-1][2] for row in rows if row["words"][-1][2] is not None]
    assert np.median(tails_s) == pytest.approx(acoustics.TAIL_S, abs=0.02)
    assert np.percentile(tails_s, [5, 90]) == pytest.approx(acoustics.TAIL_S, abs=0.1)


def test_opus_adds_no_delay(tmp_path):
    noise = acoustics.colored_noise("pink", 32_000, np.random.default_rng(0)) / 8
    soundfile.write(tmp_path / "a.ogg", noise, 16_000, format="OGG", subtype="OPUS")
    heard = soundfile.read(tmp_path / "a.ogg", dtype="float32")[0]
    lags = np.correlate(heard[1000:31_000], noise[1100:30_900], mode="valid")
    assert abs(int(np.argmax(lags)) - 100) <= 16  # a millisecond


def test_a_cut_at_the_beginning_moves_the_words():
    assert corpus._moved(spoken.Timed("a", 0.2, 0.35), 0.15, 1.0) == ("a", 0.05, 0.2)
    assert corpus._moved(spoken.Timed("a", 0.1, 1.3), 0.15, 1.0) == ("a", 0.0, 1.0)
    assert corpus._moved(spoken.Timed("a", None, None), 0.15, 1.0) == ("a", None, None)


@pytest.mark.parametrize(
    "voice",
    [Voice("espeak", "en-us+f5"), Voice("flite", "rms"), Voice("festival", "kal_diphone")],
    ids=lambda v: v.engine,
)
def test_a_synthesiser_says_when_it_speaks(voice):
    if voices.missing_programs([voice.engine]):
        pytest.skip(f"{voice.engine} is not installed")
    [found] = spoken.with_words([Request("a chef sees ten flowers", voice, rate=1.05)], workers=1)
    assert [item.word for item in found.words] == "a chef sees ten flowers".split()
    heard = acoustics.trimmed(found.samples)
    ends_s = (heard.stop / voices.SAMPLE_RATE_HZ) - acoustics.TAIL_S
    assert found.words[-1].end_s == pytest.approx(ends_s, abs=0.1)
    assert found.words[0].start_s == pytest.approx(heard.start / voices.SAMPLE_RATE_HZ + acoustics.LEAD_S, abs=0.06)


def test_words_said_as_one_have_no_times():
    heard = [spoken._Heard(True, 0, 100, False), spoken._Heard(True, 4, 300, False), spoken._Heard(False, 4, 400, True)]
    found = list(spoken._espeak_words("out of the sea", [*heard, spoken._Heard(True, 11, 500, False)], 900))
    assert [item.word for item in found] == ["out", "of", "the", "sea"]
    assert found[0] == ("out", 100 / 22_050, 300 / 22_050)
    assert found[1].start_s is None is found[2].start_s  # only "of" was reported
    assert found[3] == ("sea", 500 / 22_050, 900 / 22_050)
