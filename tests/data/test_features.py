import json
import os
import shutil
import subprocess
import sys
from subprocess import PIPE

import numpy as np
import pytest
import soundfile
from transformers import WhisperFeatureExtractor

from helpers.corpora import RATE, manifest_config, tone, write_jsonl
from quantlab.config.schema import CalibrationConfig
from quantlab.data import Features, cache_dir, calibration_ids, features, open_corpus
from quantlab.data.audio import decode
from quantlab.data.speech import SplitFeatures
from quantlab.util.errors import ConfigError


@pytest.fixture
def extractor():
    return WhisperFeatureExtractor(chunk_length=6)


@pytest.fixture
def corpus(speech):
    return open_corpus(manifest_config(speech))


def test_features_are_the_extractors_own(corpus, extractor, tmp_path):
    found = features(corpus, extractor, tmp_path)
    assert found.problems == ()
    assert list(found.splits) == ["one", "two"]
    two = found.splits["two"]
    assert two.ids == ("c.ogg", "d.oga", "e.mp3")
    assert (two.texts[0], two.speakers[0]) == ("clip c", "c")
    assert two.audio_s == pytest.approx((0.5, 2.0, 1.2), abs=0.01)  # of the clip, not of its window
    assert two.mel.shape == (3, 80, 600)
    assert two.mel.dtype == np.float32
    for row, utterance in enumerate(corpus.splits["two"]):
        clip = decode(utterance.audio, utterance.part, 6.0)
        direct = extractor(clip.samples, sampling_rate=RATE, return_tensors="np").input_features[0]
        np.testing.assert_allclose(two.mel[row], direct, atol=1e-5)


@pytest.mark.parametrize(("bins", "window_s"), [(80, 30), (128, 30), (80, 6)])
def test_window_and_bins_are_the_models(corpus, tmp_path, bins, window_s):
    found = features(corpus, WhisperFeatureExtractor(feature_size=bins, chunk_length=window_s), tmp_path)
    assert found.splits["one"].mel.shape == (2, bins, 100 * window_s)


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_second_time_nothing_is_extracted(corpus, speech, extractor, tmp_path):
    first = features(corpus, extractor, tmp_path / "cache")
    before = times(tmp_path / "cache")
    audio = speech.parent / "a.wav"
    audio.write_bytes(b"not read again")
    second = features(corpus, extractor, tmp_path / "cache")
    assert times(tmp_path / "cache") == before
    assert len(before) == 4  # two splits, an array and an index each
    assert isinstance(second.splits["one"].stored, np.memmap)
    np.testing.assert_array_equal(first.splits["one"].mel, second.splits["one"].mel)
    assert first.splits["one"].audio_s == second.splits["one"].audio_s


def test_another_extractor_or_text_is_another_entry(corpus, speech, extractor, tmp_path):
    entries = lambda: len(list((tmp_path / "cache/features").iterdir()))  # noqa: E731
    features(corpus, extractor, tmp_path / "cache")
    features(corpus, WhisperFeatureExtractor(chunk_length=6, n_fft=512), tmp_path / "cache")
    assert entries() == 4
    speech.write_text(speech.read_text().replace("clip a", "clip A"))
    found = features(open_corpus(manifest_config(speech)), extractor, tmp_path / "cache")
    assert found.splits["one"].texts[0] == "clip A"
    assert entries() == 5  # the other split is still the same


@pytest.mark.parametrize("damage", ["truncate", "garble", "remove"])
def test_a_damaged_entry_is_made_again(corpus, extractor, tmp_path, damage):
    expected = np.array(features(corpus, extractor, tmp_path).splits["one"].mel)
    for folder in (tmp_path / "features").iterdir():
        if damage == "truncate":
            with (folder / "mel.npy").open("r+b") as file:
                file.truncate(1000)
        elif damage == "garble":
            (folder / "index.json").write_text("{")
        else:
            (folder / "index.json").unlink()
    np.testing.assert_array_equal(features(corpus, extractor, tmp_path).splits["one"].mel, expected)


EXTRACT = """
import sys
from pathlib import Path
from transformers import WhisperFeatureExtractor
from quantlab.config.schema import DatasetConfig
from quantlab.data import features, open_corpus
corpus = open_corpus(DatasetConfig(name="manifest", source="manifest", path=sys.argv[1]))
extractor = WhisperFeatureExtractor(chunk_length=6)
print("ready", flush=True)
sys.stdin.readline()
found = features(corpus, extractor, Path(sys.argv[2]))
print({name: float(abs(split.mel).sum()) for name, split in found.splits.items()})
"""


def test_concurrent_writers_are_harmless(speech, tmp_path):
    command = [sys.executable, "-c", EXTRACT, str(speech), str(tmp_path / "cache")]
    workers = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(2)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    found = [worker.communicate(timeout=60)[0] for worker in workers]
    assert found[0].startswith("{'one': ")
    assert set(found) == {found[0]}
    left = [path.name for path in (tmp_path / "cache/features").iterdir()]
    assert len(left) == 2
    assert not any(name.startswith(".") for name in left)


def test_what_a_killed_process_left_is_removed(corpus, extractor, tmp_path):
    features(corpus, extractor, tmp_path)
    done = next((tmp_path / "features").iterdir())
    old = done.with_name(f".{done.name}.0123abcd.tmp")
    shutil.copytree(done, old)
    (old / "mel.npy").touch()
    shutil.rmtree(done)
    features(corpus, extractor, tmp_path)
    assert old.exists()  # fresh: its owner may be alive
    os.utime(old / "mel.npy", (0, 0))
    shutil.rmtree(done)
    features(corpus, extractor, tmp_path)
    assert not old.exists()


# problems


@pytest.fixture
def troubled(tmp_path):
    """Two good clips among one of each kind of trouble."""
    soundfile.write(tmp_path / "good.wav", tone(1.0), RATE)
    soundfile.write(tmp_path / "better.flac", tone(2.0), RATE)
    soundfile.write(tmp_path / "long.flac", tone(6.5), RATE)
    soundfile.write(tmp_path / "silent.flac", np.zeros(RATE), RATE)
    (tmp_path / "broken.flac").write_text("no audio")
    rows = [
        ("long.flac", "x"),
        ("good.wav", "x"),
        ("broken.flac", "x"),
        ("missing.flac", "x"),
        ("silent.flac", " ... "),
        ("better.flac", "x"),
    ]
    bad = {"audio": "broken.flac", "text": "y", "id": "again", "split": "hopeless"}
    return write_jsonl(tmp_path / "m.jsonl", [*({"audio": a, "text": t} for a, t in rows), bad])


def test_every_problem_is_named(troubled, extractor, tmp_path):
    corpus = open_corpus(manifest_config(troubled))
    for _ in range(2):  # extracted, and from the cache
        found = features(corpus, extractor, tmp_path / "cache")
        assert [(item.utterance, item.split, item.kind) for item in found.problems] == [
            ("long.flac", "test", "too long"),
            ("broken.flac", "test", "unreadable"),
            ("missing.flac", "test", "unreadable"),
            ("silent.flac", "test", "empty reference"),
            ("again", "hopeless", "unreadable"),
        ]
        assert list(found.splits) == ["test"]
        split = found.splits["test"]
        assert split.ids == ("good.wav", "better.flac")
        assert split.mel.shape == (2, 80, 600)
        clip = decode(corpus.splits["test"][-1].audio, corpus.splits["test"][-1].part, 6.0)
        direct = extractor(clip.samples, sampling_rate=RATE, return_tensors="np").input_features[0]
        np.testing.assert_allclose(split.mel[1], direct, atol=1e-5)


def test_what_is_doubtful_is_measured_and_named_while_it_is_in_the_figures(extractor, tmp_path):
    soundfile.write(tmp_path / "good.wav", tone(1.0), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "hot.wav", 9000 * np.stack([tone(1.0), -tone(1.0)], axis=1), RATE, subtype="FLOAT")
    rows = [{"audio": name, "text": "x"} for name in ("silent.wav", "good.wav", "hot.wav")]
    corpus = open_corpus(manifest_config(write_jsonl(tmp_path / "m.jsonl", rows)))
    for _ in range(2):  # extracted, and from the cache
        found = features(corpus, extractor, tmp_path / "cache")
        assert [(item.utterance, item.kind, item.measured) for item in found.problems] == [
            ("silent.wav", "silence", True),
            ("hot.wav", "channels cancel out", True),
        ]
        assert found.splits["test"].ids == ("silent.wav", "good.wav", "hot.wav")
    assert [item.utterance for item in found.without(["silent.wav"]).problems] == ["hot.wav"]
    left = open_corpus(manifest_config(tmp_path / "m.jsonl", channel=0))
    assert left.fingerprint != corpus.fingerprint
    found = features(left, extractor, tmp_path / "cache")
    assert [(item.utterance, item.kind) for item in found.problems] == [
        ("silent.wav", "silence"),
        ("hot.wav", "over full scale"),
    ]


def test_where_nothing_is_said_silence_is_no_doubt(extractor, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    manifest = write_jsonl(tmp_path / "m.jsonl", [{"audio": "a.wav", "text": ""}])
    found = features(open_corpus(manifest_config(manifest, nonspeech=True)), extractor, tmp_path / "cache")
    assert (found.splits["test"].ids, found.problems) == (("a.wav",), ())


def test_other_audio_of_the_same_name_size_and_time_is_never_served(extractor, tmp_path):
    path = tmp_path / "call.wav"
    soundfile.write(path, tone(1.0), RATE)
    manifest = manifest_config(write_jsonl(tmp_path / "m.jsonl", [{"audio": "call.wav", "text": "x"}]))
    before, state = open_corpus(manifest), path.stat()
    heard = np.array(features(before, extractor, tmp_path / "cache").splits["test"].mel)
    soundfile.write(path, tone(1.0, hertz=880.0), RATE)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    after = open_corpus(manifest)
    assert after.fingerprint != before.fingerprint
    assert np.abs(features(after, extractor, tmp_path / "cache").splits["test"].mel - heard).max() > 0.1
    with pytest.raises(ConfigError, match=r"call\.wav changed after it was listed: run again"):
        features(before, extractor, tmp_path / "another")  # under the name of what was hashed


def test_problems_follow_the_window(troubled, tmp_path):
    found = features(open_corpus(manifest_config(troubled)), WhisperFeatureExtractor(), tmp_path / "cache")
    assert "long.flac" in found.splits["test"].ids


def test_nothing_measurable(troubled, extractor, tmp_path):
    corpus = open_corpus(manifest_config(troubled, splits=["hopeless"]))
    with pytest.raises(ConfigError, match=r"no utterance of manifest can be measured \(1 problem: "):
        features(corpus, extractor, tmp_path / "cache")


def test_a_renamed_split_shares_the_cache_but_not_the_name(troubled, extractor, tmp_path):
    features(open_corpus(manifest_config(troubled)), extractor, tmp_path / "cache")
    rows = [json.loads(line) | {"split": "renamed"} for line in troubled.read_text().splitlines()[:-1]]
    corpus = open_corpus(manifest_config(write_jsonl(troubled, rows)))
    found = features(corpus, extractor, tmp_path / "cache")
    assert {item.split for item in found.problems} == {"renamed"}


# selection


@pytest.fixture
def synthetic():
    def split(prefix, count):
        ids = tuple(f"{prefix}{n}" for n in range(count))
        mel = np.arange(count, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
        rows = tuple(range(count))
        seconds = tuple(map(float, rows))
        return SplitFeatures(ids, ids, (None,) * count, seconds, seconds, mel, rows)

    return Features({"a": split("a", 70), "b": split("b", 30)}, ())


def test_batches(synthetic):
    batches = list(synthetic.splits["a"].batches(16))
    assert [len(batch.ids) for batch in batches] == [16, 16, 16, 16, 6]
    assert [batch.mel[0, 0, 0] for batch in batches] == [0, 16, 32, 48, 64]
    assert np.shares_memory(batches[1].mel, synthetic.splits["a"].stored)  # no copy


def test_calibration(synthetic):
    chosen = calibration_ids(synthetic, CalibrationConfig(), seed=0)
    assert len(set(chosen)) == 10
    assert chosen == calibration_ids(synthetic, CalibrationConfig(source="disjoint"), seed=0)
    assert chosen != calibration_ids(synthetic, CalibrationConfig(), seed=1)
    # printf "0 %s" ID | sha256sum, sorted: no other version or machine may choose otherwise
    assert chosen == ("a18", "a25", "a26", "a36", "a54", "a65", "a66", "b16", "b26", "b27")


def test_calibration_takes_at_least_one_and_at_most_all(synthetic):
    assert len(calibration_ids(synthetic, CalibrationConfig(fraction=0.001), 0)) == 1
    assert len(calibration_ids(synthetic, CalibrationConfig(fraction=1.0), 0)) == 100


def test_calibration_is_drawn_from_both_splits(synthetic):
    shares = [
        sum(id.startswith("b") for id in calibration_ids(synthetic, CalibrationConfig(), seed)) for seed in range(50)
    ]
    assert 2 < np.mean(shares) < 4  # 10 of 100, 30 of which are in b


def test_disjoint(synthetic):
    chosen = calibration_ids(synthetic, CalibrationConfig(), seed=0)
    rest, only = synthetic.without(chosen), synthetic.only(chosen)
    assert sum(len(split.ids) for split in rest.splits.values()) == 90
    assert not {id for split in rest.splits.values() for id in split.ids} & set(chosen)
    assert {id for split in only.splits.values() for id in split.ids} == set(chosen)
    for part in (rest, only):
        for split in part.splits.values():
            assert split.mel[:, 0, 0].tolist() == [float(id[1:]) for id in split.ids]
            joined = np.concatenate([batch.mel for batch in split.batches(7)])
            np.testing.assert_array_equal(joined, split.mel)


def test_disjoint_of_everything(synthetic):
    every = [id for split in synthetic.splits.values() for id in split.ids]
    with pytest.raises(ConfigError, match="disjoint leaves nothing to score"):
        synthetic.without(every)
    assert list(synthetic.without([id for id in every if id[0] == "a"]).splits) == ["b"]


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("QUANTLAB_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "quantlab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "quantlab"
