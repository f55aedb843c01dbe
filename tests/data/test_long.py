"""Long recordings: put together, cut into windows, and their texts joined again."""

import io
import random
from itertools import pairwise

import jiwer
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor

from helpers.corpora import RATE, manifest_config, tone, write_jsonl
from quantlab.config.compose import compose
from quantlab.config.schema import DatasetConfig, NoiseConfig
from quantlab.data import features, joined_text, open_corpus
from quantlab.data.audio import decode
from quantlab.data.merge import Overlap, merged
from quantlab.data.noise import noise_of
from quantlab.data.sound import overlaps, sound
from quantlab.data.windows import Windower
from quantlab.measurement.cell import run_cell
from quantlab.scoring.normalise import normaliser
from quantlab.util.errors import ConfigError

WINDOW_S = 6.0
PAUSES_S = (2.0, 5.0, 7.0, 9.5, 15.0)  # of 0.3 s


@pytest.fixture
def extractor():
    return WhisperFeatureExtractor(chunk_length=6)


@pytest.fixture
def recordings(tmp_path):
    """One of 20.5 s with PAUSES_S in it; one of 6 s, one of 1 s."""
    long = tone(20.5)
    for pause_s in PAUSES_S:
        long[round(pause_s * RATE) : round((pause_s + 0.3) * RATE)] = 0
    soundfile.write(tmp_path / "long.wav", long, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "window.wav", tone(6.0), RATE)
    soundfile.write(tmp_path / "short.wav", tone(1.0), RATE)
    return write_jsonl(
        tmp_path / "m.jsonl", [{"audio": f"{name}.wav", "text": name} for name in ("long", "window", "short")]
    )


def windows(manifest, **keys):
    corpus = open_corpus(manifest_config(manifest, **keys))
    [utterances] = corpus.splits.values()
    return Windower(corpus.dataset, utterances, WINDOW_S).take(utterances[0]).windows


def starts_s(found):
    """Where each window begins, if it has all that is new and what it has before that is of the window before."""
    ends = np.cumsum([window.new_s for window in found])
    return [round(float(end - window.audio_s), 3) for end, window in zip(ends, found, strict=True)]


# windows


@pytest.mark.parametrize(("overlap_s", "step_s"), [(None, 4.0), (1.5, 4.5), (5.0, 1.0)])
def test_chunks_overlap_and_cover_everything(recordings, overlap_s, step_s):
    found = windows(recordings, long="chunked", chunk_overlap_s=overlap_s)
    assert starts_s(found) == [step_s * number for number in range(len(found))]
    assert [window.audio_s for window in found[:-1]] == [WINDOW_S] * (len(found) - 1)
    assert sum(window.new_s for window in found) == pytest.approx(20.5)
    whole = soundfile.read(recordings.parent / "long.wav", dtype="float32")[0]
    for start_s, window in zip(starts_s(found), found, strict=True):
        begin = round(start_s * RATE)
        np.testing.assert_array_equal(window.samples, whole[begin : begin + len(window.samples)])


def test_an_overlap_of_a_whole_window_is_none(recordings):
    with pytest.raises(ConfigError, match=r"chunk_overlap_s=6: must be less than the window, 6 s"):
        windows(recordings, long="chunked", chunk_overlap_s=6.0)


def test_consecutive_windows_end_in_a_pause(recordings):
    """Of those in the last third of a window; the ones at 2 s and 7 s are passed over."""
    found = windows(recordings, long="consecutive")
    whole = soundfile.read(recordings.parent / "long.wav", dtype="float32")[0]
    np.testing.assert_array_equal(np.concatenate([window.samples for window in found]), whole)
    assert all(window.audio_s == window.new_s <= WINDOW_S for window in found)
    cuts_s = starts_s(found)[1:]
    assert len(cuts_s) == 3
    for cut_s, pause_s in zip(cuts_s, (5.0, 9.5, 15.0), strict=True):
        assert pause_s + 0.05 <= cut_s <= pause_s + 0.25


@pytest.mark.parametrize("how", ["chunked", "consecutive"])
def test_features_have_a_row_for_each_window(recordings, extractor, tmp_path, how):
    corpus = open_corpus(manifest_config(recordings, long=how))
    found = features(corpus, extractor, tmp_path / "cache")
    split = found.splits["test"]
    assert found.problems == ()
    first, second, third = split.utterances()
    assert (first, second, third) == ((0, split.ids.count("long.wav")), (first[1], 1), (first[1] + 1, 1))
    assert first[1] > 3
    assert split.mel.shape == (len(split.ids), 80, 600)
    assert sum(split.new_s) == pytest.approx(27.5)
    cut = windows(recordings, long=how)
    for row, window in enumerate(cut):
        direct = extractor(window.samples, sampling_rate=RATE, return_tensors="np").input_features[0]
        np.testing.assert_allclose(split.mel[row], direct, atol=1e-5)
    assert features(corpus, extractor, tmp_path / "cache").splits["test"].new_s == split.new_s
    assert found.only(["long.wav"]).splits["test"].ids == ("long.wav",) * first[1]


def test_without_it_long_ones_are_named(recordings, extractor, tmp_path):
    found = features(open_corpus(manifest_config(recordings)), extractor, tmp_path)
    assert [(item.utterance, item.kind) for item in found.problems] == [("long.wav", "too long")]
    assert "dataset.long=chunked" in found.problems[0].detail
    features(open_corpus(manifest_config(recordings, long="chunked")), extractor, tmp_path)
    features(open_corpus(manifest_config(recordings, long="chunked", chunk_overlap_s=1.0)), extractor, tmp_path)
    features(open_corpus(manifest_config(recordings, long="consecutive")), extractor, tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == 4


# texts


def heard(words, spans, window):
    """What a perfect recogniser writes of a window: the words in it, and of a word that the edge cuts a part."""
    begin, end = window
    found = []
    for word, (first, last) in zip(words, spans, strict=True):
        if begin <= first and last <= end:
            found.append(word)
        elif first < end and last > begin and min(last, end) - max(first, begin) > (last - first) / 2:
            found.append(word[:-1] + "x")
    return " ".join(found)


def recited(seed, count=400):
    """Words of a small vocabulary with their times: two to three a second, with pauses."""
    draw = random.Random(seed)
    vocabulary = [a + b for a in ("ka", "to", "mi", "su", "re", "po") for b in ("lan", "ver", "dik", "mon", "tas")]
    words, spans, now_s = [], [], 0.0
    for _ in range(count):
        length_s = draw.uniform(0.2, 0.5)
        words.append(draw.choice(vocabulary))
        spans.append((now_s, now_s + length_s))
        now_s += length_s + (draw.uniform(0.2, 1.0) if draw.random() < 0.15 else 0.0)
    return words, spans


def cut_up(words, spans, window_s, overlap_s):
    """What each window heard, and what neighbours share of the sound in each."""
    step_s = window_s - overlap_s
    found = [(start, start + window_s) for start in np.arange(0.0, max(spans[-1][1] - overlap_s, step_s), step_s)]
    shared = [(sounding_s(spans, after[0], before[1]), before, after) for before, after in pairwise(found)]
    overlaps = [
        Overlap(both_s / max(sounding_s(spans, *before), 1e-9), both_s / max(sounding_s(spans, *after), 1e-9))
        for both_s, before, after in shared
    ]
    return [heard(words, spans, window) for window in found], overlaps


def sounding_s(spans, begin, end):
    return sum(max(0.0, min(last, end) - max(first, begin)) for first, last in spans)


@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_recogniser_loses_next_to_nothing(seed):
    """30 s windows that overlap by 10 s, as they would be of Whisper; words repeat every few seconds."""
    words, spans = recited(seed)
    texts, overlaps = cut_up(words, spans, 30.0, 10.0)
    reference = " ".join(words)
    assert jiwer.wer(reference, joined_text(texts, overlaps)) <= 0.005
    assert jiwer.wer(reference, joined_text(texts)) > 0.4  # what it would be without


@pytest.mark.parametrize("window_s", [6.0, 30.0])
def test_a_word_that_is_said_a_hundred_times_is_written_a_hundred_times(window_s):
    words = ["test"] * 100
    texts, overlaps = cut_up(words, [(index / 2, index / 2 + 0.5) for index in range(100)], window_s, window_s / 3)
    assert joined_text(texts, overlaps).split() == words
    letters = [text.replace(" ", "").replace("test", "哈") for text in texts]
    assert joined_text(letters, overlaps, "zh") == "哈" * 100


PHRASES = st.lists(st.sampled_from([f"w{number}" for number in range(12)]), min_size=1, max_size=8)
REPEATED = st.lists(st.tuples(PHRASES, st.integers(1, 30)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(REPEATED, st.integers(0, 1000), st.sampled_from([(30.0, 10.0), (30.0, 3.0), (6.0, 2.0)]))
def test_repeats_survive_within_a_word_or_two_and_a_tenth_of_the_overlap(repeated, seed, sizes):
    """Any text of repeated phrases, at a rate that goes from two words a second to five, is as long as it was said."""
    words = [word for phrase, times in repeated for _ in range(times) for word in phrase]
    draw = random.Random(seed)
    ends_s = np.cumsum([0.0, *(draw.uniform(0.2, 0.5) for _ in words)]).tolist()
    texts, overlaps = cut_up(words, list(pairwise(ends_s)), *sizes)
    found = joined_text(texts, overlaps).split()
    heard_twice = len(" ".join(texts).split()) - len(words)
    assert abs(len(found) - len(words)) <= 2 * len(overlaps) + 0.1 * heard_twice


@pytest.mark.parametrize("loop", ["the", "thank you", "so it was and"])
def test_a_loop_stays_as_long_as_the_audio_that_is_new(loop):
    """A model that loops in every window writes the more the longer it runs; its errors are not joined away."""
    words = loop.split() * (220 // len(loop.split()))
    found = joined_text([" ".join(words)] * 33, [Overlap(1 / 3, 1 / 3)] * 32).split()
    assert len(found) == pytest.approx(len(words) * (1 + 32 * 2 / 3), rel=0.02)
    once = joined_text(["a b c d e f", " ".join(words), "d e f g h i"], [Overlap(1 / 3, 1 / 3)] * 2).split()
    assert len(once) > len(words)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("a b c d", "c d e", "a b c d e"),
        ("a b c dx", "xc d e f", "a b c dx xc d e f"),  # no word in common: nothing is taken away
        ("a b c d ex", "bx c d e f", "a b c d e f"),
        ("a b", "c d", "a b c d"),
        ("", "c d", "c d"),
        ("a b", "", "a b"),
        ("a b", "a b", "a b"),
        ("so it went Well.", "it went well, and", "so it went well, and"),  # capitals and punctuation do not count
    ],
)
def test_where_one_text_goes_over_into_the_next(left, right, expected):
    assert merged(left.split(), right.split(), shared=3) == expected.split()


def test_one_window_is_left_alone_and_letters_stand_for_words_where_there_are_no_spaces():
    half = [Overlap(0.5, 0.5)]
    assert joined_text([" as  it is "], half) == " as  it is "
    assert joined_text(["今日は天気が", "天気がいいです"], half, "ja") == "今日は天気がいいです"
    assert joined_text(["用 iPhone 15 拍", "iPhone 15 拍照"], half, "zh") == "用 iPhone 15 拍照"
    assert joined_text(["a ", "", " b"]) == "a b"
    assert joined_text(["", "", "a b"], [Overlap(0.0, 0.0), Overlap(0.0, 0.5)]) == "a b"


def test_what_windows_share_is_told_by_their_sound(recordings, extractor, tmp_path):
    """Windows from 0 to 6 s and from 4 to 10 s, with pauses at 2, 5, 7 and 9.5 s."""
    split = features(open_corpus(manifest_config(recordings, long="chunked")), extractor, tmp_path).splits["test"]
    found = sound(split, range(4))
    assert [window.sum() / 100 for window in found[:2]] == pytest.approx([5.4, 5.1], abs=0.08)
    before, after = overlaps(found, [0.0, 2.0, 2.0, 2.0])[0]
    assert (before, after) == (pytest.approx(1.7 / 5.4, abs=0.02), pytest.approx(1.7 / 5.1, abs=0.02))


# the demo corpus, joined


def demo_long(**keys):
    return DatasetConfig(name="demo_long", source="joined", **keys)


def test_demo_long_is_the_demo_corpus():
    long, short = open_corpus(demo_long()), open_corpus(DatasetConfig(name="demo", source="shipped"))
    for name, split in long.splits.items():
        assert " ".join(item.text for item in split) == " ".join(item.text for item in short.splits[name])
        lengths_s = [soundfile.info(io.BytesIO(item.audio())).duration for item in split[:2]]
        assert all(60 <= length_s <= 127 for length_s in lengths_s)  # the last utterance may go over 120
    assert long.fingerprint == open_corpus(demo_long()).fingerprint
    few = open_corpus(demo_long(limit=2, splits=["other"]))
    assert few.splits["other"] == long.splits["other"][:2]


def test_demo_long_is_the_demo_s_audio_with_pauses():
    [recording] = open_corpus(demo_long(limit=1, splits=["clean"])).splits["clean"]
    samples = decode(recording.audio, recording.part, None).samples
    position = 0
    for part, pause_s in zip(recording.audio.parts, recording.audio.pauses_s, strict=True):
        clip = decode(part.audio, part.part, None).samples
        np.testing.assert_array_equal(samples[position : position + len(clip)], clip)
        position += len(clip)
        silence = samples[position : position + round(pause_s * RATE)]
        assert 0.3 * RATE <= len(silence) <= 1.2 * RATE
        assert not silence.any()
        position += len(silence)
    assert position == len(samples)


def test_a_part_that_cannot_be_read_is_named(tmp_path, extractor):
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    (tmp_path / "b.wav").write_text("no audio")
    rows = [{"audio": name, "text": "x", "split": name[0]} for name in ("a.wav", "b.wav")]
    config = demo_long(path=str(write_jsonl(tmp_path / "m.jsonl", rows)))
    found = features(open_corpus(config), extractor, tmp_path / "cache")
    assert list(found.splits) == ["a"]
    assert [(item.utterance, item.kind) for item in found.problems] == [("b-000", "unreadable")]
    assert "its part b.wav: Format not recognised" in found.problems[0].detail


@pytest.mark.parametrize("how", ["chunked", "consecutive"])
def test_a_cell_scores_recordings_and_times_windows(how, monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    arguments = ["dataset=demo_long", f"dataset.long={how}", "dataset.limit=1", "dataset.splits=[clean]", "device=cpu"]
    [config] = compose([*arguments, "device.threads=1", "device.pin=false", "protocol.warmup_batches=0"])
    result = run_cell(config)
    [recording] = open_corpus(config.dataset).splits["clean"]
    [scored] = result.utterances
    length_s = decode(recording.audio, recording.part, None).seconds
    assert (scored.id, scored.reference) == ("clean-000", recording.text)
    assert scored.audio_s == pytest.approx(length_s)
    assert result.record.splits["clean"].audio_s == pytest.approx(length_s)  # overlaps count once
    assert sum(batch.utterances for batch in result.batches) >= length_s / WINDOW_S
    assert scored.tokens == sum(batch.tokens for batch in result.batches)
    words = len(normaliser()(recording.text).split())
    assert scored.substitutions + scored.deletions + scored.hits == words
    assert scored.hits > words / 4  # the model was made for one sentence in a window


def test_noise_comes_before_the_windows(recordings):
    corpus = open_corpus(manifest_config(recordings, long="consecutive", noise=NoiseConfig(kind="white", snr_db=0.0)))
    [utterances] = corpus.splits.values()
    noise = noise_of(corpus.dataset.noise)
    found = Windower(corpus.dataset, utterances, WINDOW_S, noise).take(utterances[0]).windows
    whole = noise.mixed(decode(utterances[0].audio, utterances[0].part, None).samples, utterances[0].id, utterances)
    np.testing.assert_array_equal(np.concatenate([window.samples for window in found]), whole)
