"""Conversion of other programs' checkpoints to folders of transformers, cached by content.

    <cache_dir()>/checkpoints/<key>/    as `save_pretrained` would write it

The key is a hash of what the original holds, and so the same whatever it is called and wherever it lies. Nothing is
evicted; delete a folder at will.
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

LAYOUT = 1  # of what is made; raise it when other files come of the same original
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
    """What another program wrote."""

    path: Path  # a file; of CTranslate2 the folder
    format: Format
    sha256: str  # of the file that has the weights
    quantized_as: str | None  # the formats of what is no floats

    @property
    def quantized(self) -> bool:
        return self.quantized_as is not None

    @property
    def weights(self) -> Path:
        """The file that `sha256` is of."""
        return _weights(self.path)

    @property
    def name(self) -> str:
        """Of that file, and of its folder where each of its kind has the same."""
        return f"{self.path.name}/{self.weights.name}" if self.path.is_dir() else self.path.name


def original(path: Path) -> Original | None:
    """What a path holds, if it is one of FORMATS.

    Raises:
        CheckpointError: it is, and is not whole.
    """
    format = _format(path)
    if format is None:
        return None
    with _told(path, format), Digests() as digests:
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
    """The folder that an original became, now or before; processes may ask for it at once.

    Args:
        found: the original.
        repo: of the hub, whose tokenizer it has, should it have none of its own.
        revision: of `repo`.

    Raises:
        CheckpointError: it is not whole, or no Whisper.
        ConfigError: the cache cannot be written.
        Unavailable: it has no tokenizer of its own, and none is at hand.
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
    """Under the lock of the folder, so that what another process left half is nobody's."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    fresh.mkdir()
    try:
        with _told(found.path, found.format, fresh):
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
def _told(path: Path, format: Format, made: Path | None = None) -> Iterator[None]:
    """Whatever is wrong with an original, the message names it, in one line."""
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
