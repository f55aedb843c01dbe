"""Cell ids: a hash of the configuration, of what the cell reads, and of library versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from quantlab.records.schema import to_json

ID_LENGTH = 16  # hex digits

# Where things lie and how a cell is run change no figure of it.
EXCLUDED_FROM_ID: dict[str, set[str] | bool] = {
    "output_dir": True,
    "resume": True,
    "isolate": True,
    "timeout_s": True,
    "tracking": True,
    "stats": True,
    "export": True,
    "baseline": True,
    "model": {"path"},
    "dataset": {"path", "licence", "ignored_columns"},
}

# What came later: a cell without it is the one that it was before. Only dataset.long=sequential goes by these.
LONG_FORM = ("fallbacks", "condition_on_prev_tokens")  # of the protocol, false where nobody asks for them

# Distributions whose version can change a figure, whatever the quantizer.
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
    """The id that follows from what a record holds: its configuration, fingerprints and versions."""
    facts = {"config": identity(config), "fingerprints": dict(marks), "versions": dict(library_versions)}
    return hashlib.sha256(to_json(facts).encode()).hexdigest()[:ID_LENGTH]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a dumped configuration makes the cell what it is: all but EXCLUDED_FROM_ID."""
    kept = {name: part for name, part in config.items() if EXCLUDED_FROM_ID.get(name) is not True}
    for name, keys in EXCLUDED_FROM_ID.items():
        if isinstance(keys, set) and isinstance(kept.get(name), Mapping):
            kept[name] = {key: value for key, value in kept[name].items() if key not in keys}
    dataset, protocol = kept.get("dataset"), kept.get("protocol")
    if isinstance(protocol, Mapping) and not (isinstance(dataset, Mapping) and dataset.get("long") == "sequential"):
        kept["protocol"] = {key: value for key, value in protocol.items() if value or key not in LONG_FORM}
    if isinstance(dataset, Mapping) and dataset.get("ids") is None:  # a later key
        kept["dataset"] = {key: value for key, value in dataset.items() if key != "ids"}
    if isinstance(noise := kept.get("dataset", {}).get("noise"), Mapping):  # its recordings are in the fingerprint
        kept["dataset"]["noise"] = {key: value for key, value in noise.items() if key != "path"}
    return kept
