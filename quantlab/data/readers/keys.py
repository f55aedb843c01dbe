"""Meaning of the keys of a listing. No key that could change audio or references is dropped silently.

A key is used, or checked against the audio, or known to be harmless; any other key is refused by name unless it is
listed in `dataset.ignored_columns`.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from quantlab.config.schema import DatasetConfig
from quantlab.data.utterance import Part
from quantlab.util.errors import ConfigError, shortened

# Other names for audio, text and speaker, tried if `dataset.*_column` is not set.
AUDIO = ("audio", "audio_filepath", "audio_path", "path", "file_name", "filename", "file", "wav")
TEXT = ("text", "sentence", "transcription", "transcript", "txt")
SPEAKER = ("speaker", "speaker_id", "spk_id", "spk", "client_id")

SEGMENT = ("offset", "duration", "channel")
_RATE = ("sampling_rate", "sample_rate", "samplerate")
_FRAMES = ("num_samples", "n_samples")
_CHANNELS = ("num_channels", "n_channels", "channels")
_LENGTH = ("duration_s", "audio_length_s", "length_s")  # of the whole file; `duration` is that of the part
LANGUAGE = ("language", "lang", "locale", "source_lang", "target_lang")
_TASK = ("task", "taskname")
_CHECKED = frozenset((*SEGMENT, *_RATE, *_FRAMES, *_CHANNELS, *_LENGTH, *LANGUAGE, *_TASK))
HARMLESS = frozenset(
    (
        "id key uid uuid uniq_id utt_id utterance_id sentence_id segment_id session session_id chapter_id book_id "
        "speaker_name voice seen_voice age gender sex accent accents dialect variant nationality native_language "
        "country region city up_votes down_votes sentence_domain domain topic category genre title url corpus dataset "
        "subset license licence comment note notes tags device microphone mic room environment snr snr_db mos wer cer "
        "pred_text confidence date created_at recorded_at year num_words word_count"
    ).split()
).union(SPEAKER)

_HONOURED = frozenset((*AUDIO, *TEXT, *SPEAKER, *SEGMENT, "id", "split"))
MOST = 6  # names in a refusal

_PARTS = frozenset("start end begin stop onset from to begin_time end_time start_time stop_time offset".split())
_HOW = frozenset("channel channels speed tempo pitch volume gain transform transforms effects augment".split())


def column(values: Mapping[str, Any], asked: str | None, names: tuple[str, ...], option: str) -> str | None:
    """The key that holds a value; None if there is none.

    Raises:
        ConfigError: several keys match.
    """
    if asked is not None and (asked in values or asked != names[0]):
        return asked if asked in values else None
    there = [name for name in names if name in values]
    if len(there) > 1 and names is not SPEAKER and names[0] not in there:
        raise ConfigError(f"{' and '.join(map(repr, there))} are both possible: choose with {option}")
    return there[0] if there else None


def part(values: Mapping[str, Any]) -> Part:
    """The part of the file that an utterance is, and the stated properties of the file.

    Raises:
        ConfigError: a value is invalid.
    """
    return Part(
        offset_s=_seconds(values, "offset") or 0.0,
        duration_s=_seconds(values, "duration"),
        channel=_count(values, ("channel",), least=0),
        rate=_count(values, _RATE),
        frames=_count(values, _FRAMES),
        channels=_count(values, _CHANNELS),
        seconds=next((seconds for key in _LENGTH if (seconds := _seconds(values, key)) is not None), None),
    )


def check(values: Mapping[str, Any], used: Iterable[str | None], dataset: DatasetConfig) -> None:
    """Refuse keys that are neither used nor known to be harmless.

    Raises:
        ConfigError: there is such a key, or language or task differ from the configuration.
    """
    for name in LANGUAGE:
        check_language(name, values.get(name), dataset)
    for name in _TASK:
        if values.get(name) not in (None, "asr", "transcribe"):
            raise ConfigError(f"{name}={shortened(values[name])}: quantlab measures transcription only")
    known = {*used, *_CHECKED, *HARMLESS, "split"}
    if dataset.audio_column != AUDIO[0]:
        known.update(AUDIO)
    chosen = dataset.text_column != TEXT[0]
    refuse(
        [
            name
            for name, value in values.items()
            if value is not None and name not in known and not (chosen and _is_reference(name))
        ]
    )


def check_language(name: str, stated: Any, dataset: DatasetConfig) -> None:
    """Refuse an utterance in another language than the one to decode and score.

    Raises:
        ConfigError: the language differs.
    """
    if stated is not None and _code(stated) != dataset.language:
        raise ConfigError(
            f"{name}={shortened(stated)}, but dataset.language={dataset.language}: change one of them, or ignore the "
            f"former with dataset.ignored_columns=[{name}]"
        )


def refuse(names: list[str]) -> None:
    """Refuse these keys in one line.

    Raises:
        ConfigError: the list is not empty.
    """
    if not names:
        return
    words = set("_".join(names).lower().split("_")).union(name.lower() for name in names)
    hints = []
    if words & (_PARTS | {"duration", "length"}):
        hints.append("select a part of a file with offset and duration, in seconds")
    if words & {"channel", "channels"}:
        hints.append("select a channel with channel, from 0")
    if any(map(_is_reference, names)):
        hints.append("select another reference with dataset.text_column")
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    listed = ", ".join(shortened(name, 40) for name in names[:MOST]) + more
    plain = all(re.fullmatch(r"\w{1,40}", name) for name in names) and len(names) <= MOST
    hints.append(f"if they change nothing, dataset.ignored_columns=[{','.join(names) if plain else 'NAME,…'}]")
    raise ConfigError(f"{listed}: unknown, and might change audio or references; {'; '.join(hints)}")


def without_ignored(values: Mapping[str, Any], dataset: DatasetConfig) -> dict[str, Any]:
    """The values without the keys in `dataset.ignored_columns`."""
    return {name: value for name, value in values.items() if not is_ignored(name, dataset)}


def is_ignored(name: str, dataset: DatasetConfig) -> bool:
    """Whether `dataset.ignored_columns` matches a key, by name or pattern; keys in use never match."""
    if name in _HONOURED or name in (
        dataset.audio_column,
        dataset.text_column,
        dataset.speaker_column,
        dataset.id_column,
    ):
        return name in dataset.ignored_columns
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in dataset.ignored_columns)


def affects_audio(name: str) -> bool:
    """Whether a column's name suggests that it selects a part of the audio or modifies it.

    For tables that hold the audio and many columns about it.
    """
    return bool(({name.lower()} | set(name.lower().split("_"))) & (_PARTS | _HOW) - {"to", "from"})


def _is_reference(name: str) -> bool:
    return any(word in name.lower() for word in (*TEXT, "normal", "label", "target"))


def _code(stated: Any) -> Any:
    return stated.lower().replace("_", "-").partition("-")[0] if isinstance(stated, str) else stated


def _seconds(values: Mapping[str, Any], key: str) -> float | None:
    number = _number(values, key)
    if number is not None and not (number > 0 or (number == 0 and key == "offset")):
        raise ConfigError(f"{key}={shortened(values[key])}: expected seconds, {'0 or' if key == 'offset' else ''} more")
    return number


def _count(values: Mapping[str, Any], keys: tuple[str, ...], least: int = 1) -> int | None:
    """The value on which all present keys agree."""
    numbers = {key: number for key in keys if (number := _number(values, key)) is not None}
    for key, number in numbers.items():
        if number != int(number) or number < least:
            raise ConfigError(f"{key}={shortened(values[key])}: expected a whole number, at least {least}")
    if len(set(numbers.values())) > 1:
        raise ConfigError(f"{' and '.join(numbers)} disagree")
    return int(next(iter(numbers.values()))) if numbers else None


def _number(values: Mapping[str, Any], key: str) -> float | None:
    """A finite number, or a string of one."""
    value = values.get(key)
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{key}={shortened(value)} is not a number")
    return number
