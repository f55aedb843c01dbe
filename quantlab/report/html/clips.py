"""Where the audio of a corpus lies on this machine, for the players of the page."""

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

# Sources with a file per utterance. The hub's audio is in Parquet files, which a browser cannot play.
_OF_FILES = ("shipped", "manifest", "librispeech_dir")


def uris(dataset: Mapping[str, Any], fingerprint: str | None, folders: tuple[Path, ...] = ()) -> dict[str, str]:
    """Utterance id → `file:` URI of its clip.

    A record can name any file of this machine: of what it names only what lies in `folders` is opened, and played.

    Args:
        dataset: the part `dataset` of a record's configuration.
        fingerprint: of the corpus that was measured; where another one lies at that place now, or none, there is
            nothing to play.
        folders: where the user says that audio is; what ships is where it is.
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
    """Wherever its links lead."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _uri(item: Utterance, folders: Sequence[Path]) -> str | None:
    """None where it is no file in `folders`, or where a player would play more than was heard."""
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
