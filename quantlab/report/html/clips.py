"""Where the audio of a corpus lies on this machine, for the players of the page."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantlab.config import DatasetConfig
from quantlab.errors import Unavailable

# Sources with a file per utterance. The hub's audio is in Parquet files, which a browser cannot play.
_OF_FILES = ("shipped", "manifest", "librispeech_dir")


def uris(dataset: Mapping[str, Any], fingerprint: str | None) -> dict[str, str]:
    """Utterance id → `file:` URI of its clip.

    Args:
        dataset: the part `dataset` of a record's configuration.
        fingerprint: of the corpus that was measured; where another one lies at that place now, or none, there is
            nothing to play.
    """
    if dataset.get("source") not in _OF_FILES or fingerprint is None:
        return {}
    try:
        config = DatasetConfig.model_validate(dict(dataset))
        return _listed(config.model_dump_json(), fingerprint)
    except (ValueError, Unavailable, OSError):
        return {}


@functools.lru_cache(maxsize=8)
def _listed(config: str, fingerprint: str) -> dict[str, str]:
    from quantlab.data import open_corpus

    corpus = open_corpus(DatasetConfig.model_validate_json(config))
    if corpus.fingerprint != fingerprint:
        return {}
    places = {item.id: item.audio() for split in corpus.splits.values() for item in split}
    found = {name: _uri(path) for name, path in places.items() if isinstance(path, Path)}
    return {name: uri for name, uri in found.items() if uri is not None}


def _uri(path: Path) -> str | None:
    """None where no file system can hold such a path."""
    try:
        return path.resolve().as_uri()
    except (OSError, ValueError):
        return None
