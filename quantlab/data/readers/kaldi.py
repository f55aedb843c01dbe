"""Kaldi data folders: `wav.scp` and `text`; `segments`, `utt2spk`, `utt2lang` where present.

Source: kaldi-asr.org/doc/data_prep.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantlab.data.readers.tables import Row, not_utf8, text_of
from quantlab.util.errors import ConfigError, shortened

_IN_ARCHIVE = re.compile(r":\d+(\[.*\])?$")


def is_kaldi(folder: Path) -> bool:
    return (folder / "wav.scp").is_file()


def rows(folder: Path) -> Iterator[Row]:
    """Utterances with our keys: id, audio, text, speaker; for segments also offset, duration and channel.

    In the order of `segments`, else of `wav.scp`.

    Raises:
        ConfigError: a file is missing, or a line cannot be read (`file:line`).
    """
    recordings = {id: _file(place, value) for id, (place, value) in _table(folder / "wav.scp").items()}
    texts = _table(folder / "text")
    speakers, languages = (
        _table(folder / name) if (folder / name).exists() else {} for name in ("utt2spk", "utt2lang")
    )
    parts = _segments(folder / "segments", recordings) if (folder / "segments").exists() else _whole(recordings)
    found = list(parts)
    missing = sorted(texts.keys() - {row.values["id"] for row in found})
    if missing:
        place = texts[missing[0]][0]
        raise ConfigError(
            f"{place}: {shortened(missing[0])} has no audio ({len(missing)} of them); fix_data_dir.sh removes them"
        )
    for row in found:
        id = row.values["id"]
        extra = {"speaker": speakers.get(id), "language": languages.get(id)}
        text = texts[id][1] if id in texts else ""
        yield Row(row.place, row.values | {"text": text} | {key: value[1] for key, value in extra.items() if value})


def _table(path: Path) -> dict[str, tuple[str, str]]:
    """Id → its place (`file:line`) and the rest of its line."""
    try:
        lines = text_of(path).split("\n")
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(f"dataset.path: {path} cannot be read: {why}; a Kaldi folder has wav.scp and text") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}{not_utf8(error)}") from None
    found: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        id, *rest = line.strip().split(maxsplit=1)
        if id in found:
            raise ConfigError(f"{path}:{number}: {shortened(id)} appears twice")
        found[id] = f"{path}:{number}", rest[0] if rest else ""
    return found


def _file(place: str, value: str) -> str:
    if "|" in (value[:1], value[-1:]) or value == "-":
        raise ConfigError(
            f"{place}: {shortened(value)} is a command, and nothing is executed; "
            "run it where it is trusted, and name the file that it wrote"
        )
    if not value or _IN_ARCHIVE.search(value):
        raise ConfigError(f"{place}: {shortened(value)} is not an audio file; wav-copy turns an archive into files")
    return value


def _whole(recordings: dict[str, str]) -> Iterator[Row]:
    for id, path in recordings.items():
        yield Row(id, {"id": id, "audio": path})


def _segments(path: Path, recordings: dict[str, str]) -> Iterator[Row]:
    for id, (place, rest) in _table(path).items():
        recording, *times = rest.split()
        if recording not in recordings:
            raise ConfigError(f"{place}: no recording {shortened(recording)} in wav.scp")
        yield Row(place, {"id": id, "audio": recordings[recording], **_times(place, times)})


def _times(place: str, fields: list[str]) -> dict[str, Any]:
    """Start, end (-1: the end of the recording) and optionally the channel."""
    try:
        start, end = float(fields[0]), float(fields[1])
        channel = int(fields[2]) if len(fields) > 2 else None
    except (ValueError, IndexError):
        raise ConfigError(f"{place}: expected utterance, recording, start and end in seconds") from None
    return {"offset": start, "duration": None if end == -1 else end - start, "channel": channel}
