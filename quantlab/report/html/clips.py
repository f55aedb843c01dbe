"""URIs of a corpus's audio files on this machine, for the audio players of the page."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.config.schema import DatasetConfig
from quantlab.util.errors import Unavailable
from quantlab.util.resources import ASSETS

if TYPE_CHECKING:
    from quantlab.data import Utterance

# Sources with one file per utterance. The hub's audio is in Parquet files, which a browser cannot play.
_OF_FILES = ("shipped", "manifest", "librispeech_dir")


def uris(dataset: Mapping[str, Any], fingerprint: str | None, folders: tuple[Path, ...] = ()) -> dict[str, str]:
    """Utterance id → `file:` URI of its clip.

    A record could name any file of this machine, so only files within `folders` are opened and played.

    Args:
        dataset: the `dataset` section of a record's configuration.
        fingerprint: fingerprint of the measured corpus; if its path now holds another corpus, or none, the result
            is empty.
        folders: folders that the user allows; shipped corpora are always allowed.
    """
    if dataset.get("source") not in _OF_FILES or fingerprint is None:
        return {}
    try:
        config = DatasetConfig.model_validate(dict(dataset))
        named = [path for path in (config.path, config.noise.path) if path is not None]
        if not all(_is_within(Path(path).expanduser(), folders) for path in named):
            return {}
        return _listed(config.model_dump_json(), fingerprint, (ASSETS, *folders))
    except (ValueError, Unavailable, OSError):
        return {}


@functools.lru_cache(maxsize=8)
def _listed(config: str, fingerprint: str, folders: tuple[Path, ...]) -> dict[str, str]:
    from quantlab.data import open_corpus

    corpus = open_corpus(DatasetConfig.model_validate_json(config))
    if corpus.fingerprint != fingerprint:
        return {}
    found = {item.id: _uri(item, folders) for split in corpus.splits.values() for item in split}
    return {name: uri for name, uri in found.items() if uri is not None}


def _is_within(path: Path, folders: Sequence[Path]) -> bool:
    """Whether the path, with links resolved, is within one of the folders."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _uri(item: Utterance, folders: Sequence[Path]) -> str | None:
    """URI of an utterance; None if its file is not in `folders`, or if a player would play more than was decoded."""
    from quantlab.data.utterance import File

    if not isinstance(item.audio, File) or item.part.channel is not None:
        return None
    try:
        if not _is_within(item.audio.path, folders):
            return None
        uri = item.audio.path.resolve().as_uri()
    except (OSError, ValueError):
        return None
    start, length = item.part.offset_s, item.part.duration_s
    end = "" if length is None else f",{start + length:.3f}"
    return uri if start == 0 and length is None else f"{uri}#t={start:.3f}{end}"  # W3C Media Fragments
