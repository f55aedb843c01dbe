"""Real small corpora, in the layouts and schemas of the real ones."""

import pytest
import soundfile

from helpers.corpora import RATE, tone, write_jsonl, write_librispeech_parquet


@pytest.fixture
def speech(tmp_path):
    """A manifest of five clips of different formats, rates and channel counts, in two splits."""
    clips = {
        "a.wav": (1.0, 16_000, 1, {}),
        "b.flac": (1.5, 44_100, 2, {}),
        "c.ogg": (0.5, 48_000, 1, {"format": "OGG", "subtype": "OPUS"}),
        "d.oga": (2.0, 22_050, 1, {"format": "OGG", "subtype": "VORBIS"}),
        "e.mp3": (1.2, 16_000, 1, {"format": "MP3"}),
    }
    folder = tmp_path / "speech"
    folder.mkdir()
    for number, (name, (seconds, rate, channels, options)) in enumerate(clips.items()):
        soundfile.write(folder / name, tone(seconds, rate, channels, 200 + 50 * number), rate, **options)
    return write_jsonl(
        folder / "manifest.jsonl",
        [
            {"audio": name, "text": f"clip {name[0]}", "speaker": name[0], "split": split}
            for name, split in zip(clips, ["one", "one", "two", "two", "two"], strict=True)
        ],
    )


@pytest.fixture
def librispeech(tmp_path):
    """The official layout: two subsets, two speakers, two chapters, FLAC beside its transcript."""
    root = tmp_path / "LibriSpeech"
    for subset, speakers in {"test-clean": ("1089", "61"), "test-other": ("367",)}.items():
        for speaker in speakers:
            for chapter in ("134686", "70968"):
                folder = root / subset / speaker / chapter
                folder.mkdir(parents=True)
                ids = [f"{speaker}-{chapter}-{number:04d}" for number in range(2)]
                for id in ids:
                    soundfile.write(folder / f"{id}.flac", tone(0.5), RATE)
                lines = "".join(f"{id} HE HOPED THERE WOULD BE STEW\n" for id in ids)
                (folder / f"{speaker}-{chapter}.trans.txt").write_text(lines)
    (root / "SPEAKERS.TXT").write_text("; ids\n")
    return root


README = """---
license: cc-by-4.0
configs:
- config_name: clean
  data_files:
  - split: test
    path: clean/test/*.parquet
  - split: train.100
    path: clean/train.100/*.parquet
- config_name: other
  data_files:
  - split: test
    path: other/test/*.parquet
dataset_info:
- config_name: clean
  splits:
  - name: test
    num_examples: 3
- config_name: other
  splits:
  - name: test
    num_examples: 2
---
# LibriSpeech
"""


@pytest.fixture
def hub_clone(tmp_path):
    """A clone of a repository like openslr/librispeech_asr; training files are there too."""
    root = tmp_path / "clone"
    write_librispeech_parquet(root / "clean/test/0000.parquet", ["61-7-0000", "61-7-0001", "1089-7-0000"])
    write_librispeech_parquet(root / "other/test/0000.parquet", ["367-7-0000", "367-7-0001"])
    write_librispeech_parquet(root / "clean/train.100/0000.parquet", ["9-7-0000"])
    (root / "README.md").write_text(README)
    return root
