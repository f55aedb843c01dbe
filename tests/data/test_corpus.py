import json
import os
import shutil
import subprocess
import sys

import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.corpora import RATE, manifest_config, tone, write_jsonl
from quantlab.config.compose import compose
from quantlab.config.schema import DatasetConfig
from quantlab.data import Corpus, open_corpus
from quantlab.records.cell_id import identity
from quantlab.util.errors import ConfigError


def listed(corpus):
    return {name: [item.id for item in split] for name, split in corpus.splits.items()}


# manifest


def test_manifest(speech):
    corpus = open_corpus(manifest_config(speech))
    assert listed(corpus) == {"one": ["a.wav", "b.flac"], "two": ["c.ogg", "d.oga", "e.mp3"]}
    first = corpus.splits["one"][0]
    assert (first.text, first.speaker, first.split) == ("clip a", "a", "one")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"ids": ("e.mp3", "b.flac")}, {"one": ["b.flac"], "two": ["e.mp3"]}),
        ({"ids": ("b.flac",)}, {"one": ["b.flac"]}),
        ({"ids": ("e.mp3", "d.oga"), "limit": 1}, {"two": ["d.oga"]}),
        ({"ids": ("c.ogg",), "splits": ("two",)}, {"two": ["c.ogg"]}),
    ],
)
def test_utterances_by_id(asked, found, speech):
    corpus = open_corpus(manifest_config(speech, **asked))
    assert listed(corpus) == found
    assert corpus.fingerprint != open_corpus(manifest_config(speech)).fingerprint


def test_an_id_that_is_not_there_is_named(speech):
    with pytest.raises(ConfigError, match=r"dataset.ids: .* has no utterance 'x'; its ids look like 'a.wav'"):
        open_corpus(manifest_config(speech, ids=("a.wav", "x")))
    with pytest.raises(ConfigError, match=r"has no utterance 'a.wav'"):
        open_corpus(manifest_config(speech, ids=("a.wav",), splits=("two",)))


def test_a_cell_without_chosen_ids_is_the_one_that_it_was():
    [config] = compose(["dataset.ids=null"])
    [chosen] = compose(["dataset.ids=[a,b]"])
    now, before = config.model_dump(mode="json"), config.model_dump(mode="json")
    del before["dataset"]["ids"]
    assert identity(now) == identity(before)
    assert identity(chosen.model_dump(mode="json"))["dataset"]["ids"] == ["a", "b"]


def test_manifest_defaults_and_foreign_keys(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.1), RATE)
    rows = [
        {"audio": "a.wav", "text": "x", "gender": "f", "speed": None},
        {"audio": str(tmp_path / "a.wav"), "text": "y", "id": 7, "speaker": 19},
    ]
    path = write_jsonl(tmp_path / "m.jsonl", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\n"))  # as Windows writes it
    first, second = open_corpus(manifest_config(path)).splits["test"]
    assert (first.id, first.speaker, second.id, second.speaker) == ("a.wav", None, "7", "19")


def test_manifest_with_other_column_names(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.1), RATE)
    rows = [{"audio_filepath": "a.wav", "transcript": "x", "who": "s", "key": "k"}]
    columns = {
        "audio_column": "audio_filepath",
        "text_column": "transcript",
        "speaker_column": "who",
        "id_column": "key",
    }
    corpus = open_corpus(manifest_config(write_jsonl(tmp_path / "m.jsonl", rows), **columns))
    (only,) = corpus.splits["test"]
    assert (only.id, only.text, only.speaker) == ("k", "x", "s")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON list; expected an object"),
        ("null", "expected an object"),
        ('{"text": "x"}', "no 'audio' among its keys"),
        ('{"audio": "b.wav"}', "no 'text' among its keys.*dataset.text_column"),
        ('{"audio": "", "text": "x"}', "is not a path"),
        ('{"audio": "b\\u0000.wav", "text": "x"}', "is not a path"),
        ('{"audio": 3, "text": "x"}', "audio=3 is not a string"),
        ('{"audio": "b.wav", "text": 4.5}', "text=4.5 is not a string: write it as text, in quotes"),
        ('{"audio": "b.wav", "text": ["x"]}', "is not a string"),
        ('{"audio": "b.wav", "text": "x", "speaker": {"id": 1}}', "neither a string nor a number"),
        ('{"audio": "a.wav", "text": "x"}', "also used by line 1"),
        ("[" * 20_000, "not JSON"),
    ],
)
def test_malformed_lines_are_named(tmp_path, line, says):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "a.wav", "text": "good"}\n\n' + line + "\n")
    with pytest.raises(ConfigError, match=rf"(?s)m\.jsonl:3: .*{says}"):
        open_corpus(manifest_config(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"", "holds no utterance"), (b"\xff\xfe\x00", "not UTF-8 text")],
)
def test_manifest_that_is_none(tmp_path, content, says):
    path = tmp_path / "m.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        open_corpus(manifest_config(path))


def test_a_folder_is_no_manifest(tmp_path):
    (tmp_path / "test.tsv").write_text("x")
    with pytest.raises(ConfigError, match=r"is a folder without wav\.scp; expected a manifest in it .*test\.tsv"):
        open_corpus(manifest_config(tmp_path))


def test_no_audio_at_all_is_a_wrong_path(tmp_path):
    path = write_jsonl(tmp_path / "m.jsonl", [{"audio": f"{n}.wav", "text": "x"} for n in range(3)])
    with pytest.raises(ConfigError, match=r"none of its 3 audio files exists, e\.g\. .*0\.wav"):
        open_corpus(manifest_config(path))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
rows = st.dictionaries(
    st.sampled_from(["audio", "text", "speaker", "split", "id", "other"]),
    scalars | st.lists(scalars, max_size=2),
    max_size=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows | st.lists(scalars, max_size=2), max_size=4))
def test_any_json_is_a_corpus_or_an_explained_refusal(tmp_path, values):
    soundfile.write(tmp_path / "a.wav", tone(0.01), RATE)
    good = {"audio": "a.wav", "text": "x", "id": "certainly not drawn"}
    path = write_jsonl(tmp_path / "m.jsonl", [*values, good])
    refusal, corpus = outcome(path)
    if corpus is None:
        assert "m.jsonl" in refusal
    else:
        assert sum(map(len, corpus.splits.values())) == len(values) + 1
        assert len(corpus.fingerprint) == 64


def outcome(path):
    try:
        return None, open_corpus(manifest_config(path))
    except ConfigError as error:
        return str(error), None


# selection


def test_splits_and_limit(speech):
    assert listed(open_corpus(manifest_config(speech, splits=["two"], limit=2))) == {"two": ["c.ogg", "d.oga"]}
    assert list(open_corpus(manifest_config(speech, splits=["two", "one"])).splits) == ["two", "one"]


def test_unknown_split(speech):
    with pytest.raises(ConfigError, match="no split 'tow'; did you mean 'two'"):
        open_corpus(manifest_config(speech, splits=["tow"]))
    with pytest.raises(ConfigError, match="allowed: one, two"):
        open_corpus(manifest_config(speech, splits=["xyz"]))


def test_unknown_source():
    with pytest.raises(ConfigError, match="no reader 'manifst'; did you mean 'manifest'"):
        open_corpus(DatasetConfig(name="x", source="manifst"))


def test_a_third_partys_source(tmp_path):
    """Another package adds a corpus through its entry point, unknown to quantlab."""
    soundfile.write(tmp_path / "a.wav", tone(0.1), RATE)
    (tmp_path / "elsewhere.py").write_text(
        "from pathlib import Path\n"
        "from quantlab.data import file_utterance, with_digests\n"
        "def read(dataset):\n"
        "    item = file_utterance(Path(dataset.path), id='u', split='s', text='x', speaker=None)\n"
        "    return {'s': [item]} if dataset.limit else with_digests({'s': [item]}, dataset)\n"
    )
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[quantlab.datasets]\nelsewhere = elsewhere:read\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from quantlab.config.schema import DatasetConfig\n"
        "from quantlab.data import open_corpus\n"
        f"dataset = DatasetConfig(name='mine', source='elsewhere', path={str(tmp_path / 'a.wav')!r})\n"
        "print(open_corpus(dataset).splits['s'][0].id)\n"
        "own, ours = (open_corpus(dataset.model_copy(update={'limit': limit})) for limit in (1, None))\n"
        "print(own.fingerprint == ours.fingerprint)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "u\nTrue\n", done.stderr


# fingerprint


def change_text(path):
    path.write_text(path.read_text().replace("clip a", "clip A"))


def change_speaker(path):
    path.write_text(path.read_text().replace('"speaker": "e"', '"speaker": "f"'))


def change_audio_length(path):
    soundfile.write(path.parent / "a.wav", tone(1.1), RATE)


def change_audio_within_its_size(path):
    soundfile.write(path.parent / "a.wav", tone(1.0, hertz=880.0), RATE)


def change_order(path):
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


def remove_audio(path):
    (path.parent / "a.wav").unlink()


@pytest.mark.parametrize(
    "change",
    [change_text, change_speaker, change_audio_length, change_audio_within_its_size, change_order, remove_audio],
)
def test_fingerprint_changes(speech, change):
    before = open_corpus(manifest_config(speech)).fingerprint
    change(speech)
    assert open_corpus(manifest_config(speech)).fingerprint != before


def test_fingerprint_of_selections(speech):
    marks = [
        open_corpus(manifest_config(speech, **keys)).fingerprint
        for keys in ({}, {"limit": 1}, {"limit": 2}, {"splits": ["one"]}, {"splits": ["two"]})
    ]
    assert len(set(marks)) == len(marks)


def test_fingerprint_is_independent_of_the_place(speech, tmp_path):
    moved = tmp_path / "deeper" / "elsewhere"
    shutil.copytree(speech.parent, moved)
    mark = open_corpus(manifest_config(speech)).fingerprint
    assert open_corpus(manifest_config(moved / "manifest.jsonl")).fingerprint == mark


def in_place_of(path, content):
    """Other bytes under the same name, with the size and the time of change of those before."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def with_one_bit_changed(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("place", [0.2, 0.45, 0.999])
def test_every_byte_of_the_audio_counts_whatever_size_and_time_say(speech, place):
    audio = speech.parent / "a.wav"
    before = open_corpus(manifest_config(speech)).fingerprint
    content = audio.read_bytes()
    in_place_of(audio, with_one_bit_changed(content, int(place * len(content))))
    assert open_corpus(manifest_config(speech)).fingerprint != before


def test_a_transcript_of_the_same_size_and_time_is_another_one(librispeech):
    before = open_corpus(libri_config(librispeech)).fingerprint
    path = librispeech / "test-clean/61/70968/61-70968.trans.txt"
    in_place_of(path, path.read_bytes().replace(b"STEW", b"SOUP"))
    assert open_corpus(libri_config(librispeech)).fingerprint != before


# librispeech_dir


def libri_config(path, **keys):
    return DatasetConfig(name="librispeech_dir", source="librispeech_dir", path=str(path), **keys)


def test_librispeech(librispeech):
    corpus = open_corpus(libri_config(librispeech))
    assert listed(corpus) == {
        "clean": [f"{s}-{c}-000{n}" for s in ("1089", "61") for c in ("134686", "70968") for n in (0, 1)],
        "other": [f"367-{c}-000{n}" for c in ("134686", "70968") for n in (0, 1)],
    }
    last = corpus.splits["clean"][-1]
    assert (last.speaker, last.text, last.split) == ("61", "HE HOPED THERE WOULD BE STEW", "clean")
    assert open_corpus(libri_config(librispeech.parent)).fingerprint == corpus.fingerprint  # as the archive unpacks


@pytest.mark.parametrize(
    ("inside", "kind"),
    [("test-clean", "one subset"), ("test-clean/61", "a speaker"), ("test-other/367/7", "a chapter")],
)
def test_a_folder_within_librispeech_is_told_which_to_give(librispeech, inside, kind):
    inside = next(librispeech.glob(inside), None) or next(librispeech.glob("test-other/*/*"))
    subset = inside.relative_to(librispeech).parts[0]
    with pytest.raises(ConfigError) as caught:
        open_corpus(libri_config(inside))
    name = subset.removeprefix("test-")
    assert str(caught.value) == (
        f"dataset.path={inside} is {kind} of LibriSpeech: set dataset.path={librispeech} dataset.splits=[{name}]"
    )
    assert open_corpus(libri_config(librispeech, splits=[name])).splits


def test_librispeech_with_one_subset(librispeech):
    shutil.rmtree(librispeech / "test-other")
    assert list(open_corpus(libri_config(librispeech)).splits) == ["clean"]
    with pytest.raises(ConfigError, match=r"no folder test-other/.*found SPEAKERS\.TXT, test-clean"):
        open_corpus(libri_config(librispeech, splits=["other"]))


def test_librispeech_other_subsets_by_name(librispeech):
    (librispeech / "test-clean").rename(librispeech / "dev-clean")
    assert list(open_corpus(libri_config(librispeech, splits=["dev-clean", "other"])).splits) == ["dev-clean", "other"]


def test_librispeech_audio_and_transcript_must_both_be_there(librispeech):
    """What has no pair stays in the listing, so that it is reported as a problem."""
    chapter = librispeech / "test-clean" / "61" / "70968"
    (chapter / "61-70968-0000.flac").unlink()
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 ONE\n")
    corpus = open_corpus(libri_config(librispeech))
    assert {item.id: (item.text, bool(item.digest)) for item in corpus.splits["clean"][-2:]} == {
        "61-70968-0000": ("ONE", False),
        "61-70968-0001": ("", True),
    }


def test_librispeech_somewhere_else(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder; expected one that holds test-clean"):
        open_corpus(libri_config(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="neither test-clean/ nor test-other/; found nothing"):
        open_corpus(libri_config(tmp_path))
    (tmp_path / "test-clean").mkdir()
    with pytest.raises(ConfigError, match=r"no \*\.trans\.txt and no \*\.flac"):
        open_corpus(libri_config(tmp_path))


def test_librispeech_broken_transcript(librispeech):
    path = librispeech / "test-clean" / "61" / "70968" / "61-70968.trans.txt"
    path.write_text("61-70968-0000 ONE\n61-70968-0000 TWO\n")
    with pytest.raises(ConfigError, match=r"61-70968\.trans\.txt:2: '61-70968-0000' is there twice"):
        open_corpus(libri_config(librispeech))


# shipped


def demo(**keys):
    return DatasetConfig(name="demo", source="shipped", **keys)


def test_demo():
    corpus = open_corpus(demo())
    assert set(corpus.splits) == {"clean", "other"}
    for split in corpus.splits.values():
        assert len(split) >= 150
        assert len({item.speaker for item in split}) >= 6
        assert all(item.digest and item.text for item in split)


def test_opening_is_quick_and_free_of_torch():
    code = (
        "import sys, json\n"
        "from quantlab.config.schema import DatasetConfig, ModelConfig\n"
        "from quantlab import models\n"
        "from quantlab.data import open_corpus\n"
        "mark = open_corpus(DatasetConfig(name='demo', source='shipped')).fingerprint\n"
        "nano = models.fingerprint(ModelConfig(name='nano', source='shipped'), 0)\n"
        "print(json.dumps([mark, nano, sorted({'torch', 'transformers', 'datasets'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mark, nano, heavy = json.loads(done.stdout)
    assert heavy == []
    assert mark == open_corpus(demo()).fingerprint  # another process, another hash seed
    assert nano.startswith("sha256:")


def test_corpus_is_frozen():
    with pytest.raises(AttributeError):
        Corpus(demo(), "y", {}).fingerprint = "z"
