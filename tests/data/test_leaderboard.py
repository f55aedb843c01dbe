"""The corpora of the Open ASR Leaderboard as their YAML names them, from Parquet files of the same schema."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from transformers import WhisperFeatureExtractor

from helpers.corpora import RATE, encoded, tone
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus

ENGLISH = ("ami", "common_voice", "earnings22", "gigaspeech", "spgispeech", "tedlium", "voxpopuli")
TEXTS = ["So, what's the plan?", "ignore_time_segment_in_scoring", "Uh, <unk> [noise]", "<inaudible> mhm.", "Okay."]
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(path, columns):
    """With the metadata that `datasets` puts into it."""
    kinds = {"string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float64": pa.float64(), "audio": AUDIO}
    told = {
        name: {"sampling_rate": RATE, "_type": "Audio"} if kind == "audio" else {"dtype": kind, "_type": "Value"}
        for name, (kind, _) in columns.items()
    }
    schema = pa.schema(
        [(name, kinds[kind]) for name, (kind, _) in columns.items()],
        metadata={"huggingface": json.dumps({"info": {"features": told}})},
    )
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({name: values for name, (_, values) in columns.items()}, schema=schema), path)


def write_card(root, configs, rows):
    """The part of a dataset card that says where the files of a split lie."""
    card = {
        "configs": [
            {"config_name": name, "data_files": [{"split": "test", "path": f"{name}/test-*"}]} for name in configs
        ],
        "dataset_info": [{"config_name": name, "splits": [{"name": "test", "num_examples": rows}]} for name in configs],
    }
    (root / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")


@pytest.fixture
def english(tmp_path):
    """hf-audio/esb-datasets-test-only-sorted: longest first, and ids of Common Voice that repeat."""
    root = tmp_path / "esb"
    for name in ENGLISH:
        ids = ["a.mp3", "a.mp3", "b", "c", "d"] if name == "common_voice" else list("abcde")
        seconds = [1.0, 0.9, 0.8, 0.7, 0.6]
        clips = [
            {"bytes": encoded(tone(length_s)), "path": f"{id}.wav"} for id, length_s in zip(ids, seconds, strict=True)
        ]
        columns = {
            "audio": ("audio", clips),
            "dataset": ("string", [name] * 5),
            "text": ("string", TEXTS),
            "id": ("string", ids),
            "audio_length_s": ("float64", seconds),
        }
        write_parquet(root / f"{name}/test-00000-of-00001.parquet", columns)
    write_card(root, ENGLISH, 5)
    return root


def dataset(name, root, *more):
    [config] = compose([f"dataset={name}", f"dataset.path={root}", *more])
    return config.dataset


@pytest.mark.parametrize("name", ENGLISH)
def test_what_the_leaderboard_does_not_score_is_named(english, tmp_path, name):
    corpus = open_corpus(dataset(name, english))
    found = features(corpus, WhisperFeatureExtractor(chunk_length=6), tmp_path / "cache")
    split = found.splits["test"]
    assert split.texts == ("So, what's the plan?", "Okay.")
    assert split.audio_s == pytest.approx((1.0, 0.6))
    assert [item.kind for item in found.problems] == ["empty reference"] * 3
    assert [item.utterance for item in found.problems] == [item.id for item in corpus.splits["test"][1:4]]
    assert "'ignore_time_segment_in_scoring' is left out by dataset.unscored" in found.problems[0].detail
    assert (split.ids == ("test-000000", "test-000004")) == (name == "common_voice")


def test_it_is_the_configuration_that_leaves_them_out(english, tmp_path):
    extractor = WhisperFeatureExtractor(chunk_length=6)
    found = features(open_corpus(dataset("ami", english, "dataset.unscored=[okay]")), extractor, tmp_path)
    assert found.splits["test"].texts == tuple(TEXTS[:4])  # compared without capitals and punctuation
    everything = features(open_corpus(dataset("ami", english, "dataset.unscored=[]")), extractor, tmp_path)
    assert everything.splits["test"].texts == tuple(TEXTS)
    assert len(list((tmp_path / "features").iterdir())) == 2


def test_the_configuration_of_each_corpus():
    for name in ENGLISH:
        config = dataset(name, "anywhere")
        assert config.repo == "hf-audio/esb-datasets-test-only-sorted"
        assert len(config.revision) == 40
        assert config.hub_splits["test"].config == name
        assert config.licence


@pytest.fixture
def fleurs(tmp_path):
    """google/fleurs: a sentence is read by several people and has one id."""
    root = tmp_path / "fleurs"
    for config, text in {"en_us": "he said hello", "de_de": "er sagte schönen tag"}.items():
        columns = {
            "id": ("int32", [1904, 1904]),
            "num_samples": ("int32", [16_000, 12_800]),
            "path": ("string", ["1.wav", "2.wav"]),
            "audio": ("audio", [{"bytes": encoded(tone(s), format="WAV"), "path": "x.wav"} for s in (1.0, 0.8)]),
            "transcription": ("string", [text] * 2),
            "raw_transcription": ("string", [text.capitalize()] * 2),
            "gender": ("int64", [0, 1]),
            "lang_id": ("int64", [19, 19]),
            "language": ("string", ["?"] * 2),
            "lang_group_id": ("int64", [0, 0]),
        }
        write_parquet(root / f"{config}/test-00000-of-00001.parquet", columns)
    write_card(root, ("en_us", "de_de"), 2)
    return root


def test_fleurs_in_another_language(fleurs):
    german = dataset("fleurs", fleurs, "dataset.hub_splits.test.config=de_de", "dataset.language=de")
    assert [item.text for item in open_corpus(german).splits["test"]] == ["er sagte schönen tag"] * 2
    english = open_corpus(dataset("fleurs", fleurs))
    assert [(item.id, item.text) for item in english.splits["test"]] == [
        ("test-000000", "he said hello"),
        ("test-000001", "he said hello"),
    ]
