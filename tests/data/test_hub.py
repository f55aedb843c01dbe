"""The hub's own client and `datasets`, on a server of this process that answers as the hub does."""

import contextlib
import os
import shutil
import socket
from collections import defaultdict

import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from helpers.corpora import RATE, tone, write_librispeech_parquet
from helpers.local_hub import COMMIT, Repository, serving
from quantlab import models
from quantlab.config.schema import DatasetConfig, HubSplit, ModelConfig
from quantlab.data import features, open_corpus
from quantlab.data.audio import UnreadableAudioError, decode
from quantlab.util.errors import ConfigError, Unavailable


def config(**keys):
    splits = {name: HubSplit(config=name, split="test") for name in ("clean", "other")}
    columns = {"speaker_column": "speaker_id", "id_column": "id"}
    return DatasetConfig(name="librispeech", source="hub", hub_splits=splits, **columns, **keys)


def pinned(**keys):
    return config(repo="openslr/librispeech_asr", revision=COMMIT, **keys)


def listed(corpus):
    return {name: [item.id for item in split] for name, split in corpus.splits.items()}


EVERYTHING = {"clean": ["61-7-0000", "61-7-0001", "1089-7-0000"], "other": ["367-7-0000", "367-7-0001"]}


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    use_server(monkeypatch, "http://127.0.0.1:9")  # refuses


def use_server(monkeypatch, url):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", url)


@contextlib.contextmanager
def hub_with(folder, monkeypatch):
    """The names of the files that are fetched, in order; every repository is this folder."""
    with serving(defaultdict(lambda: Repository(folder))) as (url, fetched), monkeypatch.context() as patched:
        use_server(patched, url)
        yield fetched


# corpora


def test_a_local_clone(hub_clone):
    corpus = open_corpus(config(path=str(hub_clone)))
    assert listed(corpus) == EVERYTHING
    first = corpus.splits["clean"][0]
    assert (first.text, first.speaker) == ("MISTER QUILTER IS THE APOSTLE", "61")
    assert decode(corpus.splits["clean"][2].audio, corpus.splits["clean"][2].part, 30).seconds == pytest.approx(0.6)


def test_limit_and_splits(hub_clone):
    corpus = open_corpus(config(path=str(hub_clone), splits=["clean"], limit=2))
    assert listed(corpus) == {"clean": EVERYTHING["clean"][:2]}


def test_without_a_readme_the_usual_layouts_are_tried(hub_clone):
    (hub_clone / "README.md").unlink()
    assert listed(open_corpus(config(path=str(hub_clone)))) == EVERYTHING
    for name in ("clean", "other"):
        (hub_clone / name / "test" / "0000.parquet").rename(hub_clone / name / "test-00000-of-00001.parquet")
    assert listed(open_corpus(config(path=str(hub_clone)))) == EVERYTHING


def test_an_unreadable_readme_is_none(hub_clone):
    (hub_clone / "README.md").write_text("---\n: [\n---\n")
    assert listed(open_corpus(config(path=str(hub_clone)))) == EVERYTHING


def test_the_audio_of_another_configuration_is_never_taken(hub_clone):
    shutil.rmtree(hub_clone / "other")
    with pytest.raises(ConfigError, match="no Parquet file of config 'other', split 'test'"):
        open_corpus(config(path=str(hub_clone)))


def test_fingerprint_follows_the_files(hub_clone, tmp_path):
    before = open_corpus(config(path=str(hub_clone))).fingerprint
    moved = shutil.copytree(hub_clone, tmp_path / "moved")
    assert open_corpus(config(path=str(moved))).fingerprint == before
    write_librispeech_parquet(moved / "other/test/0000.parquet", ["367-7-0000", "367-7-0002"])
    assert open_corpus(config(path=str(moved))).fingerprint != before


def test_a_clone_of_the_same_size_and_time_is_read_again(hub_clone):
    path = hub_clone / "other/test/0000.parquet"
    before, state = open_corpus(config(path=str(hub_clone))), path.stat()
    content = path.read_bytes()
    assert content.count(b"367-7-0001") > 0
    path.write_bytes(content.replace(b"367-7-0001", b"367-7-0009"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = open_corpus(config(path=str(hub_clone)))
    assert after.fingerprint != before.fingerprint
    assert [item.id for item in after.splits["other"]] == ["367-7-0000", "367-7-0009"]


def test_unreadable_rows_are_problems(hub_clone, tmp_path):
    from transformers import WhisperFeatureExtractor

    write_librispeech_parquet(hub_clone / "other/test/0000.parquet", ["1-1-1", "1-1-2"], [b"no audio", None])
    corpus = open_corpus(config(path=str(hub_clone)))
    found = features(corpus, WhisperFeatureExtractor(chunk_length=6), tmp_path / "cache")
    assert [(item.utterance, item.kind) for item in found.problems] == [
        ("1-1-1", "unreadable"),
        ("1-1-2", "unreadable"),
    ]
    assert list(found.splits) == ["clean"]


def test_wrong_column_and_split(hub_clone):
    with pytest.raises(
        ConfigError, match=r"dataset\.text_column=sentence: no such column; there are file, audio, text"
    ):
        open_corpus(config(path=str(hub_clone), text_column="sentence"))
    with pytest.raises(ConfigError, match="no split 'clear'; did you mean 'clean'"):
        open_corpus(config(path=str(hub_clone), splits=["clear"]))
    with pytest.raises(ConfigError, match="names no split"):
        open_corpus(DatasetConfig(name="x", source="hub", path=str(hub_clone)))
    with pytest.raises(ConfigError, match="names no hub repository"):
        open_corpus(config())


def test_broken_parquet(hub_clone):
    (hub_clone / "clean/test/0000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"0000\.parquet cannot be read"):
        open_corpus(config(path=str(hub_clone)))


def test_only_the_splits_asked_for_are_fetched_and_once(hub_clone, monkeypatch):
    with hub_with(hub_clone, monkeypatch) as fetched:
        corpus = open_corpus(pinned(splits=["other"]))
        assert listed(corpus) == {"other": EVERYTHING["other"]}
        assert fetched == ["README.md", "other/test/0000.parquet"]
        mark = open_corpus(pinned()).fingerprint
        assert sorted(fetched) == ["README.md", "clean/test/0000.parquet", "other/test/0000.parquet"]
    assert open_corpus(pinned()).fingerprint == mark  # the server is gone


def test_a_broken_off_download_is_no_corpus(hub_clone, monkeypatch):
    write_librispeech_parquet(hub_clone / "other/test/0000.parquet", ["367-7-0000"])
    with (
        hub_with(hub_clone, monkeypatch),
        pytest.raises(Unavailable, match="only 1 of 2 rows are on this machine"),
    ):
        open_corpus(pinned())


def test_what_is_not_pinned_is_remembered_too(hub_clone, monkeypatch):
    branch = config(repo="o/r", revision=None)
    with hub_with(hub_clone, monkeypatch) as fetched:
        mark = open_corpus(branch).fingerprint
        assert sorted(fetched) == ["README.md", "clean/test/0000.parquet", "other/test/0000.parquet"]
    assert open_corpus(branch).fingerprint == mark  # the server is gone


def test_unknown_revision(hub_clone, monkeypatch):
    with hub_with(hub_clone, monkeypatch), pytest.raises(ConfigError, match="no dataset o/r at revision v7"):
        open_corpus(config(repo="o/r", revision="v7"))


# neither hub nor cache


@contextlib.contextmanager
def silent_server():
    """Takes connections and never says a word, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


SMALL = ModelConfig(name="small", source="hub", repo="openai/whisper-small", revision=COMMIT)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("trouble", ["refused", "silent", "offline"])
def test_one_sentence_and_no_hang(monkeypatch, trouble):
    with silent_server() as url:
        if trouble == "silent":
            use_server(monkeypatch, url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", trouble == "offline")
        for ask, ways in (
            (
                lambda: open_corpus(pinned()),
                ["quantlab fetch dataset=librispeech", "dataset=librispeech_dir dataset.path=", "dataset=demo"],
            ),
            (
                lambda: models.load(SMALL, 0),
                ["quantlab fetch model=small", "model.path=FOLDER", "model=nano", "model.weights=random"],
            ),
        ):
            with pytest.raises(Unavailable) as caught:
                ask()
            assert "\n" not in str(caught.value)
            assert "is not on this machine" in str(caught.value)
            assert all(way in str(caught.value) for way in ways)


def test_no_network_leaves_the_fingerprint_of_what_is_pinned():
    assert models.fingerprint(SMALL, 0) == f"openai/whisper-small@{COMMIT}"
    assert models.fingerprint(SMALL.model_copy(update={"revision": None}), 0) == "openai/whisper-small@unknown"


# checkpoints


def test_checkpoint_from_the_hub(monkeypatch, tmp_path):
    """The shipped checkpoint, served as a hub repository beside what must not be fetched."""
    root = shutil.copytree(models.ASSETS / "nano", tmp_path / "served")
    (root / "pytorch_model.bin").write_bytes(b"a pickle")
    (root / "modeling_evil.py").write_text("raise SystemExit")
    with hub_with(root, monkeypatch) as fetched:
        checkpoint = models.load(SMALL, 0)
        assert models.fingerprint(SMALL, 0) == f"openai/whisper-small@{COMMIT}"
    assert checkpoint.tokenizer is not None
    assert "model.safetensors" in fetched
    assert not {"pytorch_model.bin", "modeling_evil.py"} & set(fetched)
    again = models.load(SMALL, 0)  # the server is gone
    assert again.model.config.d_model == checkpoint.model.config.d_model


@pytest.mark.network
def test_the_real_hub(monkeypatch, request):
    if "network" not in request.config.getoption("markexpr"):
        pytest.skip("downloads 150 MB: run with -m network")
    use_server(monkeypatch, "https://huggingface.co")
    revision = "169d4a4341b33bc18d8881c4b69c2e104e1cc0af"  # conf/model/tiny.yaml's
    config = ModelConfig(name="tiny", source="hub", repo="openai/whisper-tiny", revision=revision)
    try:
        checkpoint = models.load(config, 0)
    except Unavailable as error:
        pytest.skip(str(error))
    assert checkpoint.model.num_parameters() == 37_760_640


# what a column holds


def write_table(folder, **columns):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "data/test-00000-of-00001.parquet")
    return DatasetConfig(name="mine", source="hub", path=str(folder), hub_splits={"test": HubSplit(split="test")})


def array(samples, kind, rate=RATE):
    nested = pa.list_(kind) if np.ndim(samples) == 1 else pa.list_(pa.list_(kind))
    value = [{"array": np.asarray(samples).tolist(), "sampling_rate": rate}]
    return pa.array(value, pa.struct([("array", nested), ("sampling_rate", pa.int64())]))


@pytest.mark.parametrize(
    ("kind", "scale"), [(pa.float64(), 1), (pa.float32(), 1), (pa.int16(), 2**15), (pa.int32(), 2**31)]
)
def test_an_array_with_its_sampling_rate_is_audio(tmp_path, kind, scale):
    samples = scale * tone(0.5).astype(np.float64)
    table = write_table(tmp_path, audio=array(samples if scale == 1 else samples.astype(int), kind), text=["x"])
    [item] = open_corpus(table).splits["test"]
    clip = decode(item.audio, item.part, 6.0)
    np.testing.assert_allclose(clip.samples, tone(0.5), atol=1e-4)
    assert clip.doubts == ()


def test_channels_of_an_array_come_first(tmp_path):
    samples = np.stack([tone(0.5), tone(0.5, hertz=300.0)])
    table = write_table(tmp_path, audio=array(samples, pa.float64()), text=["x"])
    [item] = open_corpus(table.model_copy(update={"channel": 1})).splits["test"]
    np.testing.assert_allclose(decode(item.audio, item.part, 6.0).samples, samples[1], atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "kind", "rate", "why"),
    [
        ([1, 2, 3], pa.int64(), RATE, "integers of unknown width"),
        ([0.1, 0.2], pa.float64(), 0, "at 0 Hz is not audio"),
        ([0.1, 0.2], pa.float64(), None, "sampling_rate=None"),
        ([], pa.float64(), RATE, "no samples"),
    ],
)
def test_an_array_that_is_no_audio_is_named(tmp_path, samples, kind, rate, why):
    [item] = open_corpus(write_table(tmp_path, audio=array(samples, kind, rate), text=["x"])).splits["test"]
    with pytest.raises(UnreadableAudioError, match=why):
        decode(item.audio, item.part, 6.0)


@pytest.mark.parametrize(
    "audio",
    [[[0.1, 0.2]], [3], [{"array": [0.1]}], [{"samples": [0.1], "sampling_rate": RATE}], [b"RIFF"]],
)
def test_a_column_that_holds_no_audio_is_refused_in_one_line(tmp_path, audio):
    with pytest.raises(ConfigError, match=r"dataset\.audio_column=audio holds .*: expected encoded audio") as caught:
        open_corpus(write_table(tmp_path, audio=audio, text=["x"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["offset", "begin_time", "End", "start", "channel", "speed", "volume_db"])
def test_a_column_that_says_what_is_heard_is_refused_or_known_to_change_nothing(tmp_path, name):
    table = write_table(tmp_path, audio=array(tone(0.5), pa.float64()), text=["x"], **{name: [0.1]})
    with pytest.raises(ConfigError, match=rf"'{name}': unknown, and .*dataset\.ignored_columns=\[{name}\]"):
        open_corpus(table)
    plain = open_corpus(table.model_copy(update={"ignored_columns": (name,)}))
    assert len(plain.splits["test"]) == 1


@pytest.mark.parametrize("kind", ["paths", "structs"])
def test_files_beside_the_table_are_read_and_all_their_bytes_count(tmp_path, kind):
    soundfile.write(tmp_path / "a.wav", tone(0.5), RATE)
    audio = ["a.wav"] if kind == "paths" else [{"bytes": None, "path": "a.wav"}]
    table = write_table(tmp_path, audio=audio, text=["x"])
    before = open_corpus(table)
    [item] = before.splits["test"]
    assert decode(item.audio, item.part, 6.0).seconds == 0.5
    soundfile.write(tmp_path / "a.wav", tone(0.5, hertz=300.0), RATE)
    assert open_corpus(table).fingerprint != before.fingerprint


def test_rows_of_another_language_are_not_decoded_as_ours(tmp_path):
    table = write_table(tmp_path, audio=array(tone(0.5), pa.float64()), text=["x"], locale=["de"])
    with pytest.raises(ConfigError, match=r"locale='de', but dataset\.language=en: change one"):
        open_corpus(table)
    assert len(open_corpus(table.model_copy(update={"language": "de"})).splits["test"]) == 1


@pytest.mark.parametrize("text", [["a", "b"], {"en": "a"}, 4.5])
def test_a_reference_that_is_no_text_is_refused(tmp_path, text):
    table = write_table(tmp_path, audio=array(tone(0.5), pa.float64()), text=[text])
    with pytest.raises(ConfigError, match=r"dataset\.text_column=text holds .*: expected text"):
        open_corpus(table)


def test_a_pipe_is_no_table_and_not_waited_for(hub_clone):
    os.mkfifo(hub_clone / "other/test/0001.parquet")
    with pytest.raises(ConfigError, match=r"0001\.parquet cannot be read: not a regular file"):
        open_corpus(config(path=str(hub_clone)))
