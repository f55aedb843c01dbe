"""Baselines of cells that a bundle measured on another machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantlab.records.cell_id import identity
from quantlab.records.schema import Record, to_json

_SCORERS = ("jiwer", "whisper-normalizer")  # distributions that make counts of texts
_OF_TEXTS = ("max_new_tokens", "num_beams", "fallbacks", "condition_on_prev_tokens", "looks")  # keys of the protocol


def find_device_baselines(bundled: Sequence[Record], home: Iterable[Record]) -> dict[str, str]:
    """Cell id → id of its baseline, for records of bundles.

    That is the unquantized cell of the same bundle and machine, if there is one. Otherwise it is the latest fp32 cell
    of quantlab's own with the same checkpoint, audio, decoding and scoring: its utterances give a verdict on WER; its
    times are another machine's, and are not compared.

    Args:
        bundled: records that have `bundle`.
        home: baselines with status ok that quantlab measured itself.
    """
    known = {item.cell_id for item in bundled if item.status == "ok"}
    of_texts = {
        _texts(item): item.cell_id
        for item in sorted(home, key=lambda item: item.created_at)
        if item.setting("runtime.dtype") in (None, "float32")
    }
    found = {}
    for item in bundled:
        assert item.bundle is not None
        own = item.bundle.baseline
        one = of_texts.get(_texts(item)) if own is None else own if own in known else None
        if one is not None:
            found[item.cell_id] = one
    return found


def _texts(record: Record) -> str:
    """What the texts of a model before quantization, and their counts, depend on, besides the machine."""
    config = identity(record.config)
    protocol, runtime = config.get("protocol") or {}, config.get("runtime") or {}
    disjoint = record.setting("calibration.source") == "disjoint"
    marks = {name: record.fingerprints.get(name) for name in ("checkpoint", "corpus")}
    versions = record.environment.get("versions") or {}
    return to_json(
        [
            config.get("model"),
            config.get("dataset"),
            {key: protocol.get(key) or None for key in _OF_TEXTS},
            runtime.get("audio_ctx"),
            config.get("calibration") if disjoint else None,  # it takes utterances out
            marks,
            {name: versions.get(name) for name in _SCORERS},
            [record.normaliser, record.error_unit, record.scorer],
        ]
    )
