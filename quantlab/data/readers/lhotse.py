"""Cut manifests of lhotse: one supervised stretch of one channel per line.

Source: lhotse.readthedocs.io/en/latest/cuts.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from quantlab.util.errors import ConfigError, shortened

# Keys that do not affect the audio: features are computed here, and `custom` holds third-party data.
_CUT = frozenset({"id", "start", "duration", "channel", "supervisions", "recording", "features", "custom", "type"})
_RECORDING = frozenset(
    {"id", "sources", "sampling_rate", "num_samples", "duration", "channel_ids", "channel", "transforms", "type"}
)
_SUPERVISION = frozenset(
    "id recording_id start duration channel text language speaker gender custom alignment type".split()
)
MARGIN_S = 1.0  # of a cut that its text need not cover
_TRIM = "cuts.trim_to_supervisions() makes a cut of each"
_CUTS = "CutSet.from_manifests(recordings=…, supervisions=…).trim_to_supervisions().to_file('cuts.jsonl')"


def is_lhotse(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object is from lhotse, a cut or not."""
    return "supervisions" in values or "recording_id" in values or {"sources", "sampling_rate"} <= values.keys()


def row(values: Mapping[str, Any]) -> dict[str, Any]:
    """A cut with our keys: id, audio, text, speaker, offset, duration, channel, sampling rate.

    Raises:
        ConfigError: not a cut, or a cut that is more than a part of one file.
    """
    if values.get("type", "MonoCut") != "MonoCut" or "supervisions" not in values:
        raise ConfigError(f"a lhotse object that is not a MonoCut; cuts are read: {_CUTS}")
    _only(values, _CUT, "a cut")
    recording, supervision = _part(values, "recording"), _one(values["supervisions"], "supervision", _TRIM)
    _only(recording, _RECORDING, "a recording")
    _only(supervision, _SUPERVISION, "a supervision")
    if supervision.get("channel", values.get("channel")) != values.get("channel"):
        raise ConfigError(f"its audio is channel {values.get('channel')}, its text {supervision['channel']}; {_TRIM}")
    _check_covered(values, supervision)
    if recording.get("transforms"):
        raise ConfigError("its recording has transforms, which are not applied: save the transformed audio")
    source = _one(recording.get("sources"), "source", "one file has to hold all channels")
    if source.get("type") != "file":
        raise ConfigError(f"its recording is of type {shortened(source.get('type'))}, but only files are read")
    return {
        "id": values.get("id"),
        "audio": source.get("source"),
        "text": supervision.get("text"),
        "speaker": supervision.get("speaker"),
        "language": supervision.get("language"),
        "offset": values.get("start"),
        "duration": values.get("duration"),
        "channel": values.get("channel"),
        "sampling_rate": recording.get("sampling_rate"),
    }


def _check_covered(cut: Mapping[str, Any], supervision: Mapping[str, Any]) -> None:
    """Check that the text covers the audio, except for pauses around it."""
    start, duration, whole = supervision.get("start"), supervision.get("duration"), cut.get("duration")
    if not (_is_number(start) and _is_number(duration) and _is_number(whole)):
        return
    rest = whole - start - duration
    if max(0.0, start) + max(0.0, rest) > MARGIN_S or min(start, rest) < -MARGIN_S:
        raise ConfigError(f"its text covers {start:g} to {start + duration:g} s, its audio {whole:g} s; {_TRIM}")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float)


def _part(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    if not isinstance(found, dict):
        raise ConfigError(f"its {key} is {shortened(found)}; expected an object; lazy cuts: cuts.to_eager()")
    return found


def _one(found: Any, what: str, way_out: str) -> Mapping[str, Any]:
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], dict):
        count = len(found) if isinstance(found, list) else 0
        raise ConfigError(f"it has {count} {what}s, but exactly one is needed; {way_out}")
    return found[0]


def _only(values: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    other = sorted(key for key, value in values.items() if key not in known and value is not None)
    if other:
        raise ConfigError(f"{shortened(other[0])} of {what} is not supported: remove it, or apply it to the audio")
