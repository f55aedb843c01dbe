"""Cell ids: a hash of the configuration, the input data, and library versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from quantlab.config.schema import NO_QUANTIZATION, CalibrationConfig, QuantConfig
from quantlab.config.streaming import READS
from quantlab.records.schema import to_json

ID_LENGTH = 16  # hex digits

# Where things lie and how a cell is run change no figure of it; the content of some is among the fingerprints.
EXCLUDED_FROM_ID: dict[str, set[str] | bool] = {
    "output_dir": True,
    "resume": True,
    "jobs": True,
    "isolate": True,
    "timeout_s": True,
    "tracking": True,
    "stats": True,
    "export": True,
    "baseline": True,
    "model": {"path"},
    "quant": {"path"},
    "dataset": {"path", "licence", "ignored_columns", "keywords"},
    "calibration": {"path"},
}

# Keys added later, with their defaults; cells that do not use them keep their ids.
ADDED: dict[str, dict[str, object]] = {
    "model": {"family": "whisper", "config": None},
    "quant": {
        "act_order": None,
        "damping": None,
        "smoothing": None,
        "recover": None,
        "lora_rank": 8,
        "method": None,
        "modules": {},
    },
    "calibration": {"limit": None, "labels": "self"},
    "protocol": {"looks": None, "stops": "verdict"},
    "runtime": {"word_times": False, "streaming": None},
}
# As before; only dataset.long=sequential uses them.
LONG_FORM = ("fallbacks", "condition_on_prev_tokens")  # keys of the protocol, false by default

# Distributions whose version can change figures of any quantizer.
LIBRARIES = (
    "quantlab",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "jiwer",
    "whisper-normalizer",
    "soundfile",
    "soxr",
)


def hashed(config: Mapping[str, Any], marks: Mapping[str, str], library_versions: Mapping[str, str]) -> str:
    """Compute a cell's id from its configuration, fingerprints and library versions."""
    facts = {"config": identity(config), "fingerprints": dict(marks), "versions": dict(library_versions)}
    return hashlib.sha256(to_json(facts).encode()).hexdigest()[:ID_LENGTH]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a dumped configuration that identifies the cell: all but EXCLUDED_FROM_ID."""
    kept = {name: part for name, part in config.items() if EXCLUDED_FROM_ID.get(name) is not True}
    for name, keys in EXCLUDED_FROM_ID.items():
        if isinstance(keys, set) and isinstance(kept.get(name), Mapping):
            kept[name] = {key: value for key, value in kept[name].items() if key not in keys}
    dataset, protocol = kept.get("dataset"), kept.get("protocol")
    if isinstance(protocol, Mapping) and not (isinstance(dataset, Mapping) and dataset.get("long") == "sequential"):
        kept["protocol"] = {key: value for key, value in protocol.items() if value or key not in LONG_FORM}
    if isinstance(dataset, Mapping) and dataset.get("ids") is None:  # a key added later
        kept["dataset"] = {key: value for key, value in dataset.items() if key != "ids"}
    if isinstance(calibration := kept.get("calibration"), Mapping) and calibration.get("source") == "manifest":
        quant = QuantConfig.model_validate(kept["quant"])
        kept["calibration"] = calibration if quant.is_calibrated else CalibrationConfig().model_dump(exclude={"path"})
    if isinstance(protocol, Mapping) and protocol.get("looks") is not None:
        if kept["quant"]["library"] != NO_QUANTIZATION.library:
            kept["stats"] = {"margin": config["stats"]["margin"]}  # it decides where a cell stops
        else:
            kept["protocol"] = {key: value for key, value in kept["protocol"].items() if key != "stops"}
    if kept.get("quant", {}).get("recover") is None:
        kept.pop("recovery", None)  # a section added later
    if isinstance(runtime := kept.get("runtime"), Mapping) and "streaming" in runtime:
        kept["runtime"] = {**runtime, "streaming": _streaming(runtime["streaming"])}
    for name, added in ADDED.items():
        if isinstance(part := kept.get(name), Mapping):
            kept[name] = {key: value for key, value in part.items() if key not in added or value != added[key]}
    if isinstance(noise := kept.get("dataset", {}).get("noise"), Mapping):  # the fingerprint covers its recordings
        kept["dataset"]["noise"] = {key: value for key, value in noise.items() if key != "path"}
    return kept


def _streaming(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """The keys of `runtime.streaming` that its policy reads; None without streaming."""
    if part.get("policy") is None:
        return None
    return {key: value for key, value in part.items() if key == "policy" or key in READS.get(part["policy"], part)}
