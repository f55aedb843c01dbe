"""Listings of other tools are read as they are; what a key says is honoured, or refused by its name."""

import gzip
import json
import os

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.corpora import RATE, manifest_config, tone, write_jsonl
from quantlab.config.schema import DatasetConfig
from quantlab.data import open_corpus
from quantlab.data.audio import UnreadableAudioError, decode
from quantlab.data.readers.keys import HARMLESS
from quantlab.data.utterance import WHOLE, Part
from quantlab.util.errors import ConfigError

TEXTS = ("one two", "three", "four, five")


@pytest.fixture
def folder(tmp_path):
    """Three clips, a recording of two seconds that changes its pitch, and the same on two channels."""
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", tone(0.2 + 0.1 * number), RATE)
    talk = np.concatenate([tone(0.5, hertz=200.0 * number) for number in range(1, 5)])
    soundfile.write(tmp_path / "talk.wav", talk, RATE)
    soundfile.write(tmp_path / "two.wav", np.stack([tone(1.0), tone(1.0, hertz=900.0)], axis=1), RATE)
    return tmp_path


def opened(path, **keys):
    [(_, split)] = open_corpus(manifest_config(path, **keys)).splits.items()
    return split


def refusal(path, **keys):
    with pytest.raises(ConfigError) as caught:
        open_corpus(manifest_config(path, **keys))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def heard(item):
    return decode(item.audio, item.part, None).samples


# segments


def segments(folder, *rows):
    return write_jsonl(folder / "m.json", [{"audio_filepath": "talk.wav", "text": "x"} | row for row in rows])


def test_a_segment_is_what_is_heard_and_needs_no_id(folder):
    path = segments(folder, {"offset": 0.5, "duration": 0.5}, {"offset": 1.5}, {"duration": "0.25"}, {"channel": 0}, {})
    whole = soundfile.read(folder / "talk.wav", dtype="float32")[0]
    found = opened(path)
    expected = (whole[8000:16_000], whole[24_000:], whole[:4000], whole, whole)
    for item, samples in zip(found, expected, strict=True):
        np.testing.assert_array_equal(heard(item), samples)
    assert [item.id for item in found] == [
        "talk.wav@0.5+0.5",
        "talk.wav@1.5",
        "talk.wav+0.25",
        "talk.wav#0",
        "talk.wav",
    ]


def test_a_segment_is_in_the_fingerprint(folder):
    rows = ({}, {"offset": 0.5}, {"offset": 0.5, "duration": 0.5}, {"duration": 0.5}, {"channel": 0})
    marks = {open_corpus(manifest_config(segments(folder, {"id": "a"} | row))).fingerprint for row in rows}
    assert len(marks) == len(rows)


def test_the_same_segment_twice_needs_an_id(folder):
    told = refusal(segments(folder, {"offset": 0.5}, {"offset": 0.5}))
    assert "m.json:2: id 'talk.wav@0.5' is also used by line 1; give each line a unique id" in told


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"offset": -0.5}, "offset=-0.5: expected seconds, 0 or more"),
        ({"duration": 0}, "duration=0: expected seconds"),
        ({"duration": "soon"}, "duration='soon' is not a number"),
        ({"offset": float("nan")}, "offset=nan is not a number"),
        ({"offset": True}, "offset=True is not a number"),
        ({"offset": [0.5]}, "offset=[0.5] is not a number"),
        ({"channel": -1}, "channel=-1: expected a whole number, at least 0"),
        ({"channel": 0.5}, "channel=0.5: expected a whole number, at least 0"),
        ({"channel": [0, 1]}, "channel=[0, 1] is not a number"),
        ({"channel": "left"}, "channel='left' is not a number"),
        ({"sampling_rate": 16_000, "sample_rate": 8000}, "sampling_rate and sample_rate disagree"),
    ],
)
def test_a_value_that_is_none_is_refused(folder, row, says):
    assert f"m.json:1: {says}" in refusal(segments(folder, row))


def test_a_channel_is_chosen_by_the_row_or_for_all(folder):
    rows = [{"audio": "two.wav", "text": "x", "channel": channel} for channel in (0, 1)]
    path = write_jsonl(folder / "m.jsonl", rows)
    both = soundfile.read(folder / "two.wav", dtype="float32")[0]
    for channel, item in enumerate(opened(path)):
        np.testing.assert_array_equal(heard(item), both[:, channel])
    [item] = opened(write_jsonl(folder / "n.jsonl", [{"audio": "two.wav", "text": "x"}]), channel=1)
    np.testing.assert_array_equal(heard(item), both[:, 1])
    assert "dataset.channel=0: 'two.wav#1' sets channel 1 itself" in refusal(path, channel=0)


def test_long_recordings_are_joined_of_segments(folder):
    path = segments(folder, {"offset": 0.5, "duration": 0.5}, {"offset": 1.0, "duration": 0.25})
    config = DatasetConfig(name="long", source="joined", path=str(path))
    [recording] = open_corpus(config).splits["test"]
    whole = soundfile.read(folder / "talk.wav", dtype="float32")[0]
    np.testing.assert_array_equal(heard(recording)[:8000], whole[8000:16_000])
    other = segments(folder, {"offset": 0.5, "duration": 0.5}, {"offset": 1.25, "duration": 0.25})
    assert open_corpus(config.model_copy(update={"path": str(other)})).splits["test"][0].digest != recording.digest


def test_long_recordings_are_joined_of_one_channel(folder):
    path = write_jsonl(folder / "m.jsonl", [{"audio": "two.wav", "text": "x"}])
    config = DatasetConfig(name="long", source="joined", path=str(path), channel=1)
    [recording] = open_corpus(config).splits["test"]
    expected = soundfile.read(folder / "two.wav", dtype="float32")[0][:, 1]
    np.testing.assert_array_equal(heard(recording)[:16_000], expected)


# keys


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("start", "select a part of a file with offset and duration, in seconds; "),
        ("end_time", "select a part of a file with offset and duration, in seconds; "),
        ("Offset", "select a part of a file with offset and duration, in seconds; "),
        ("speed", ""),
        ("volume", ""),
        ("sox_effects", ""),
        ("label", "select another reference with dataset.text_column; "),
        ("normalized_text", "select another reference with dataset.text_column; "),
        ("channel_id", "select a channel with channel, from 0; "),
        ("num_frames", ""),
        ("anything", ""),
    ],
)
def test_a_key_that_could_change_what_is_heard_is_refused_by_name(folder, key, hint):
    path = write_jsonl(folder / "m.jsonl", [{"audio": "0.wav", "text": "x"}, {"audio": "1.wav", "text": "x", key: 0.5}])
    told = refusal(path)
    assert f"m.jsonl:2: '{key}': unknown, and might change audio or references; {hint}" in told
    assert told.endswith(f"if they change nothing, dataset.ignored_columns=[{key}]")
    assert len(opened(path, ignored_columns=(key,))) == 2
    assert len(opened(path, ignored_columns=("*",) if key == "anything" else (f"{key[:3]}*",))) == 2


def test_a_pattern_ignores_nothing_that_is_honoured(folder):
    plain = segments(folder, {"offset": 0.5, "speed": 1.0, "emotion": "none"})
    assert [item.id for item in opened(plain, ignored_columns=("*",))] == ["talk.wav@0.5"]
    assert [item.id for item in opened(plain, ignored_columns=("*", "offset"))] == ["talk.wav"]


def test_what_is_ignored_is_no_part_of_the_corpus_and_what_is_empty_says_nothing(folder):
    plain = write_jsonl(folder / "m.jsonl", [{"audio": "0.wav", "text": "x"}])
    mark = open_corpus(manifest_config(plain)).fingerprint
    for row in ({"speed": None}, {"gender": "f", "age": 30}):
        write_jsonl(plain, [{"audio": "0.wav", "text": "x"} | row])
        assert open_corpus(manifest_config(plain)).fingerprint == mark
    write_jsonl(plain, [{"audio": "0.wav", "text": "x", "speed": 1.0}])
    assert open_corpus(manifest_config(plain, ignored_columns=("speed",))).fingerprint == mark


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=12), st.integers(1, 3))
def test_no_key_is_dropped_that_is_not_known(folder, key, value):
    """Another key is refused, or is told apart by what is heard or scored, or is one of a list that can be read."""
    plain = {"audio": "two.wav", "text": "x", "id": "a"}
    if key in plain:
        return
    path = write_jsonl(folder / "m.jsonl", [plain])
    mark = open_corpus(manifest_config(path)).fingerprint
    try:
        found = open_corpus(manifest_config(write_jsonl(path, [plain | {key: value}])))
    except ConfigError:
        pass
    else:
        assert found.fingerprint != mark or list(found.splits) != ["test"] or key in HARMLESS


@pytest.mark.parametrize(
    "row",
    [
        {"sampling_rate": 8000},
        {"num_channels": 2},
        {"num_samples": 3201},
        {"duration_s": 0.5},
        {"audio": {"path": "0.wav", "sampling_rate": 44_100}},
    ],
)
def test_what_a_row_says_of_its_file_has_to_be_so(folder, row):
    [item] = opened(write_jsonl(folder / "m.jsonl", [{"audio": "0.wav", "text": "x"} | row]))
    with pytest.raises(UnreadableAudioError, match="the manifest says that it has"):
        heard(item)
    right = {"sampling_rate": "16000", "num_channels": 1, "num_samples": 3200, "duration_s": 0.2}
    [item] = opened(write_jsonl(folder / "m.jsonl", [{"audio": "0.wav", "text": "x"} | right]))
    assert len(heard(item)) == 3200


def test_a_row_in_another_language_or_task_is_not_scored_as_if_it_were_ours(folder):
    row = {"audio": "0.wav", "text": "x"}
    path = write_jsonl(folder / "m.jsonl", [row | {"lang": "en-GB", "locale": "en", "task": "transcribe"}])
    assert len(opened(path)) == 1
    told = refusal(path, language="de")
    assert "lang='en-GB', but dataset.language=de: change one" in told
    assert "task='translate': quantlab measures transcription only" in refusal(
        write_jsonl(path, [row | {"task": "translate"}])
    )


def test_names_of_others_are_known_and_several_are_not_guessed_at(folder):
    for audio, text in (
        ("audio_filepath", "text"),
        ("path", "sentence"),
        ("file_name", "transcription"),
        ("wav", "txt"),
    ):
        [item] = opened(write_jsonl(folder / "m.jsonl", [{audio: "0.wav", text: "hello", "client_id": "s"}]))
        assert (item.id, item.text, item.speaker) == ("0.wav", "hello", "s")
    rows = [{"audio": "0.wav", "sentence": "one", "transcript": "two"}]
    assert "'sentence' and 'transcript' are both possible: choose with dataset.text_column" in refusal(
        write_jsonl(folder / "m.jsonl", rows)
    )
    [item] = opened(folder / "m.jsonl", text_column="transcript")
    assert item.text == "two"


# formats


def contents():
    rows = [{"audio": f"{number}.wav", "text": text} for number, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    tsv = "".join(f"abc{n}\t{n}.wav\t{text}\t2\t\ten\n" for n, text in enumerate(TEXTS))
    csv_lines = "".join(f'{row["audio"]},"{row["text"]}"\r\n' for row in rows)
    return {
        "lines.jsonl": lines,
        "crlf.jsonl": "\ufeff" + lines.replace("\n", "\r\n"),
        "array.json": json.dumps(rows),
        "array_of_lines.json": "\n" + json.dumps(rows, indent=1),
        "datasets.jsonl": "".join(
            json.dumps({"audio": {"path": row["audio"], "bytes": None}, "sentence": row["text"]}) + "\n" for row in rows
        ),
        "test.tsv": "client_id\tpath\tsentence\tup_votes\tsegment\tlocale\n" + tsv,
        "test.csv": "audio,text\r\n" + csv_lines,
        "of_a_frame.csv": ",audio,text\n"
        + "".join(f"{n},{line}\n" for n, line in enumerate(csv_lines.split("\r\n")[:-1])),
        "semicolons.csv": "audio;text\n" + "".join(f"{row['audio']};{row['text']}\n" for row in rows),
        "quoted.csv": 'audio,text\n0.wav,one two\n\n1.wav,"three"\n2.wav,"four, five"\n',
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gzip"])
@pytest.mark.parametrize("name", contents())
def test_listings_are_read_whatever_wrote_them(folder, name, encoding):
    text = contents()[name]
    if encoding == "gzip":
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path = folder / name
        path.write_bytes(text.removeprefix("\ufeff").encode(encoding))
    found = opened(path)
    assert [(item.id, item.text) for item in found] == [(f"{n}.wav", text) for n, text in enumerate(TEXTS)]
    assert all(item.digest for item in found)
    if name == "test.tsv":
        assert [item.speaker for item in found] == ["abc0", "abc1", "abc2"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.tsv", "path\tsentence\n0.wav\n", "a.tsv:2: 1 field, but 2 columns"),
        ("a.csv", 'audio,text\n0.wav,"one\n1.wav,two\n', "a.csv:3: unexpected end of data"),
        ("a.csv", "audio,audio\n0.wav,x\n", "the first line names the column 'audio' twice"),
        ("a.csv", "LJ001-0001|one|one\nLJ001-0002|two|two\n", "no 'audio' among its keys"),
        ("a.csv", "audio,text,start\n0.wav,x,1.5\n", "a.csv:2: 'start': unknown"),
        ("a.csv", "audio,text\n", "holds no utterance"),
        ("a.json", '{\n "audio": "0.wav"\n}', "a.json:1: not JSON"),
        ("a.json", '{"audio": "0.wav", "text": "x", "offset": 0, "offset": 1}', "the key 'offset' appears twice"),
        ("a.json", '[{"audio": "0.wav"}]', "a.json: item 1: no 'text' among its keys"),
        ("a.stm", "talk 1 speaker 0.0 1.5 <o> one two\n", "a.stm:1: plain text, not a row with audio and text"),
        ("transcripts.txt", "1089-0\thello there\n", "transcripts.txt:1: plain text, not a row with audio and text"),
        ("1-2.trans.txt", "1-2-0 HELLO\n", "a transcript of LibriSpeech: set dataset=librispeech_dir"),
        ("a.jsonl", "{'audio': '0.wav'}\n", "not JSON (Expecting property name"),
        ("a.jsonl.gz", "no gzip", "Not a gzipped file"),
    ],
)
def test_what_is_no_listing_is_told_in_one_line(folder, name, content, says):
    (folder / name).write_text(content)
    assert says in refusal(folder / name)


def test_a_text_in_another_encoding_is_told_how_to_convert_it(folder):
    for name in ("a.csv", "a.jsonl", "a.tsv"):
        (folder / name).write_bytes("audio,text\n0.wav,schön\n".encode("cp1252"))
        assert f"{name}:2 is not UTF-8 text (byte 0xf6): if it is Latin-1 or Windows-1252" in refusal(folder / name)
        assert "iconv -f WINDOWS-1252 -t UTF-8" in refusal(folder / name)


def test_a_file_of_a_kaldi_folder_is_told_to_give_the_folder(folder):
    (folder / "wav.scp").write_text("a 0.wav\n")
    (folder / "text").write_text("a hello\n")
    assert f"a file of a Kaldi folder: set dataset.path={folder}" in refusal(folder / "text")
    (folder / "text").write_bytes("a schön\n".encode("latin-1"))
    assert "text:1 is not UTF-8 text (byte 0xf6)" in refusal(folder)


def test_a_pipe_or_a_device_is_no_manifest_and_not_waited_for(folder):
    os.mkfifo(folder / "m.jsonl")
    assert "not a regular file" in refusal(folder / "m.jsonl")
    assert "not a regular file" in refusal("/dev/zero")
    [found] = opened(write_jsonl(folder / "n.jsonl", [{"audio": "0.wav", "text": "x"}]))
    rows = [{"audio": name, "text": "x"} for name in ("0.wav", "m.jsonl", "/dev/zero")]
    _, pipe, device = opened(write_jsonl(folder / "n.jsonl", rows))
    for item in (pipe, device):
        with pytest.raises(UnreadableAudioError, match="not a regular file"):
            heard(item)
    assert len(heard(found)) == 3200


def test_paths_of_windows_and_of_common_voice_are_found(folder):
    (folder / "clips").mkdir()
    soundfile.write(folder / "clips/here.wav", tone(0.1), RATE)
    rows = [{"audio": name, "text": "x"} for name in ("clips\\here.wav", "here.wav")]
    assert all(item.digest for item in opened(write_jsonl(folder / "m.jsonl", rows)))


def test_a_reference_of_digits_is_text(folder):
    [item] = opened(write_jsonl(folder / "m.jsonl", [{"audio": "0.wav", "text": 42}]))
    assert item.text == "42"


def test_an_array_in_a_row_is_audio(folder):
    samples = tone(0.1).astype(float).tolist()
    audio = {"array": samples, "sampling_rate": RATE, "path": "train/1.mp3"}
    first, second = opened(
        write_jsonl(
            folder / "m.jsonl",
            [{"audio": audio, "text": "x"}, {"audio": audio | {"path": None}, "text": "x", "offset": 0.05}],
        )
    )
    np.testing.assert_allclose(heard(first), tone(0.1), atol=1e-6)
    np.testing.assert_allclose(heard(second), tone(0.1)[800:], atol=1e-6)
    assert (first.id, second.id) == ("train/1.mp3", "test 2@0.05")
    for wrong in ({"array": samples}, {"array": "x", "sampling_rate": RATE}, {"array": [1, 2], "sampling_rate": RATE}):
        [item] = opened(write_jsonl(folder / "m.jsonl", [{"audio": wrong, "text": "x"}]))
        with pytest.raises(UnreadableAudioError):
            heard(item)
    told = refusal(write_jsonl(folder / "m.jsonl", [{"audio": {"path": "0.wav", "start": 1}, "text": "x"}]))
    assert "audio with 'start': expected path, or array and sampling_rate" in told


# Kaldi


def kaldi(folder, **files):
    for name, content in ({"wav.scp": "r talk.wav\n", "text": "r one two\n"} | files).items():
        (folder / name).write_text(content)
    return folder


def test_a_folder_of_kaldi(folder):
    [item] = opened(kaldi(folder))
    assert (item.id, item.text, item.speaker, item.part) == ("r", "one two", None, WHOLE)
    kaldi(folder, utt2spk="b s1\na s2\n", text="a one\nb two\nc\n", **{"wav.scp": "r talk.wav\nt two.wav\n"})
    (folder / "segments").write_text("b r 0.5 1.0\na t 0.25 -1 1\nc r 1.0 1.5\n")
    found = opened(folder)
    assert [(item.id, item.text, item.speaker) for item in found] == [
        ("b", "two", "s1"),
        ("a", "one", "s2"),
        ("c", "", None),
    ]
    assert [item.part for item in found[:2]] == [Part(0.5, 0.5), Part(0.25, None, 1)]
    assert len(heard(found[1])) == 12_000


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"wav.scp": "r touch executed |\n"}, "wav.scp:1: 'touch executed |' is a command, and nothing is executed"),
        ({"wav.scp": "r | touch executed\n"}, "is a command, and nothing is executed"),
        ({"wav.scp": "r -\n"}, "is a command, and nothing is executed"),
        (
            {"wav.scp": "r audio.ark:1234\n"},
            "'audio.ark:1234' is not an audio file; wav-copy turns an archive into files",
        ),
        ({"wav.scp": "r talk.wav\nr two.wav\n"}, "wav.scp:2: 'r' appears twice"),
        ({"text": "r one\nu two\n"}, "text:2: 'u' has no audio"),
        ({"utt2lang": "r de\n"}, "language='de', but dataset.language=en"),
        ({"segments": "r q 0 1\n"}, "segments:1: no recording 'q' in wav.scp"),
        ({"segments": "r r 0\n"}, "segments:1: expected utterance, recording, start and end in seconds"),
        ({"segments": "r r 1.0 0.5\n"}, "segments:1: duration=-0.5: expected seconds"),
    ],
)
def test_a_folder_of_kaldi_is_read_and_never_executed(folder, monkeypatch, files, says):
    monkeypatch.chdir(folder)
    assert says in refusal(kaldi(folder, **files))
    assert not (folder / "executed").exists()


def test_a_folder_of_kaldi_without_references(folder):
    kaldi(folder)
    (folder / "text").unlink()
    assert "a Kaldi folder has wav.scp and text" in refusal(folder)


# lhotse


def cut(**changes):
    source = {"type": "file", "channels": [0], "source": "talk.wav"}
    recording = {"id": "r", "sources": [source], "sampling_rate": RATE, "num_samples": 32_000, "duration": 2.0}
    supervision = {
        "id": "s",
        "recording_id": "r",
        "start": 0,
        "duration": 0.5,
        "channel": 0,
        "text": "one",
        "speaker": "a",
    }
    whole = {"id": "c", "start": 0.5, "duration": 0.5, "channel": 0, "type": "MonoCut"}
    return whole | {"supervisions": [supervision], "recording": recording} | changes


def test_a_cut_of_lhotse(folder):
    [item] = opened(write_jsonl(folder / "cuts.jsonl", [cut()]))
    assert (item.id, item.text, item.speaker) == ("c", "one", "a")
    assert item.part == Part(0.5, 0.5, 0, rate=RATE)
    whole = soundfile.read(folder / "talk.wav", dtype="float32")[0]
    np.testing.assert_array_equal(heard(item), whole[8000:16_000])


RECORDING, SUPERVISION = cut()["recording"], cut()["supervisions"][0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "MixedCut"}, "not a MonoCut; cuts are read: CutSet.from_manifests("),
        (
            {"supervisions": [SUPERVISION, SUPERVISION]},
            "it has 2 supervisions, but exactly one is needed; cuts.trim_to",
        ),
        ({"supervisions": []}, "it has 0 supervisions"),
        ({"recording": RECORDING | {"transforms": [{"name": "Speed"}]}}, "has transforms, which are not applied"),
        ({"recording": RECORDING | {"sources": [{"type": "command", "source": "touch x"}]}}, "only files are read"),
        ({"recording": RECORDING | {"speed": 1.1}}, "'speed' of a recording is not supported"),
        ({"duration": 2.0}, "its text covers 0 to 0.5 s, its audio 2 s; cuts.trim_to_supervisions()"),
        ({"volume": 2.0}, "'volume' of a cut is not supported"),
        ({"channel": [0, 1]}, "its audio is channel [0, 1], its text 0"),
        ({"supervisions": [SUPERVISION | {"channel": 1}]}, "its audio is channel 0, its text 1"),
        ({"supervisions": [SUPERVISION | {"language": "de"}]}, "language='de', but dataset.language=en"),
        ({"recording": None}, "its recording is None; expected an object"),
    ],
)
def test_a_cut_that_is_more_than_a_stretch_of_a_file_is_refused(folder, changes, says):
    told = refusal(write_jsonl(folder / "cuts.jsonl", [cut(**changes)]))
    assert told.startswith(f"{folder / 'cuts.jsonl'}:1: ")
    assert says in told


def test_recordings_and_supervisions_by_themselves_are_no_cuts(folder):
    for part in (RECORDING, SUPERVISION):
        told = refusal(write_jsonl(folder / "part.jsonl", [part]))
        assert "a lhotse object that is not a MonoCut; cuts are read: CutSet.from_manifests(" in told
