"""Conversion of other programs' checkpoints to transformers folders, cached by content.

    <cache_dir()>/checkpoints/<key>/    as `save_pretrained` would write it

The key is a hash of the original's content, independent of its name and location. Nothing is evicted; folders can be
deleted any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from filelock import FileLock

from quantlab.models import folder as folders
from quantlab.models.convert import from_ctranslate2, from_ggml, from_openai
from quantlab.models.files import is_there
from quantlab.models.formats import ctranslate2
from quantlab.models.formats.ggml.read import MAGIC
from quantlab.records.schema import to_json
from quantlab.util.errors import CheckpointError, ConfigError
from quantlab.util.files import Digests, cache_dir, opened

LAYOUT = 1  # version of the output; raise it when a conversion changes
Format = Literal["ctranslate2", "ggml", "openai"]
FORMATS: dict[Format, ModuleType] = {
    "ctranslate2": from_ctranslate2,
    "ggml": from_ggml,
    "openai": from_openai,
}
LONGEST_REASON = 400  # characters
NAMES = {"ctranslate2": "CTranslate2", "ggml": "whisper.cpp", "openai": "OpenAI"}


@dataclass(frozen=True)
class Original:
    """A checkpoint written by another program."""

    path: Path  # a file; for CTranslate2 a folder
    format: Format
    sha256: str  # of the file with the weights
    quantized_as: str | None  # formats of the weights that are not floats

    @property
    def quantized(self) -> bool:
        return self.quantized_as is not None

    @property
    def weights(self) -> Path:
        """The file with the weights."""
        return _weights(self.path)

    @property
    def name(self) -> str:
        """Name of the file, with its folder if the file name is generic."""
        return f"{self.path.name}/{self.weights.name}" if self.path.is_dir() else self.path.name


def original(path: Path) -> Original | None:
    """The checkpoint of another program at a path, if any.

    Raises:
        CheckpointError: the file is incomplete.
    """
    format = _format(path)
    if format is None:
        return None
    with _one_line_errors(path, format), Digests() as digests:
        return Original(path, format, digests.of(_weights(path)), FORMATS[format].quantized_as(path))


def _format(path: Path) -> Format | None:
    if path.is_dir():
        model = path / from_ctranslate2.MODEL
        if is_there(path / "model.safetensors") or is_there(path / folders.INDEX) or not model.is_file():
            return None
        with contextlib.suppress(OSError):
            return "ctranslate2" if ctranslate2.kind(model) == from_ctranslate2.SPEC else None
    if path.is_file():
        with contextlib.suppress(OSError), opened(path) as file:
            start = file.read(4)
            return "ggml" if start == MAGIC else "openai" if start.startswith(from_openai.STARTS) else None
    return None


def _weights(path: Path) -> Path:
    return path / from_ctranslate2.MODEL if path.is_dir() else path


def converted(found: Original, repo: str | None, revision: str | None) -> Path:
    """The converted folder of an original, cached; safe for concurrent processes.

    Args:
        found: the original.
        repo: hub repository whose tokenizer is used if the original has none.
        revision: revision of `repo`.

    Raises:
        CheckpointError: the original is incomplete, or not a Whisper model.
        ConfigError: the cache cannot be written.
        Unavailable: it has no tokenizer, and none is available.
    """
    words = from_openai.words(found.path, repo, revision) if found.format == "openai" else None
    root = cache_dir() / "checkpoints"
    folder = root / _key(found, words)
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            if not folder.is_dir():
                _make(found, words, folder)
    except OSError as error:
        raise ConfigError(
            f"the cache {root} cannot be written: {error.strerror}; set QUANTLAB_CACHE to a folder that can"
        ) from None
    return folder


def _key(found: Original, words: from_openai.Words | None) -> str:
    facts: list[object] = [LAYOUT, found.format, found.sha256, words and words.digest]
    if found.path.is_dir():
        with Digests() as digests:
            beside = [found.path / name for name in from_ctranslate2.SMALL if (found.path / name).is_file()]
            facts += [[path.name, digests.of(path)] for path in beside]
    return hashlib.sha256(to_json(facts).encode()).hexdigest()[:32]


def _make(found: Original, words: from_openai.Words | None, folder: Path) -> None:
    """Convert while holding the folder's lock; any incomplete leftovers can then be removed."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.mkdir()
    try:
        with _one_line_errors(found.path, found.format, fresh):
            if words is None:
                FORMATS[found.format].write(found.path, fresh)
            else:
                from_openai.write(found.path, fresh, words)
            folders.check(fresh)
            with Digests() as digests:
                if digests.of(found.weights) != found.sha256:
                    raise ValueError("it changed while it was read: run again")
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def _one_line_errors(path: Path, format: Format, made: Path | None = None) -> Iterator[None]:
    """Within the block, errors about an original become one-line messages that name it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(made or path), str(path))) from None
    except OSError as error:
        if made is not None and error.filename is not None and str(error.filename).startswith(str(made)):
            raise
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        why = " ".join(str(error).split())
        raise CheckpointError(f"{path} cannot be read as a model of {NAMES[format]}: {why[:LONGEST_REASON]}") from None
