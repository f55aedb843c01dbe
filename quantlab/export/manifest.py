"""`quantlab.json`, the manifest of an exported folder, and the check of the files beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from quantlab.config.schema import QuantConfig
from quantlab.config.types import Dtype
from quantlab.models.decoding import Decoding
from quantlab.models.folder import some
from quantlab.models.foreign import EXPORT
from quantlab.quantization.base import Trait
from quantlab.util.errors import ExportError

NAME = EXPORT
WEIGHTS = "quantized.safetensors"  # for PyTorch libraries; a name that transformers does not take for a checkpoint
README = "README.md"
FORMAT: Final = 1  # version of the folder format

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]  # without a path


class Manifest(BaseModel):
    """Data to rebuild the model around its tensors, from `quant` and shapes alone; nothing in it is executed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    format: Literal[1] = FORMAT
    cell_id: str
    label: str  # display name of the cell
    versions: dict[str, str]  # of the libraries that made the model
    quant: QuantConfig
    device: Literal["cpu", "cuda", "mps"]  # where it was measured; layouts can depend on it
    dtype: Dtype | None  # of unquantized tensors; null for models of other engines, which list no modules and tensors
    modules: tuple[str, ...]  # quantized Linear modules, by their names in transformers
    traits: dict[str, dict[str, Trait]] = Field(default_factory=dict)  # by module: what its tensors do not show
    tensors: dict[str, str] = Field(default_factory=dict)  # in WEIGHTS: name → dtype and shape, `int8 [192, 192]`
    decoding: Decoding  # as when measured
    files: dict[FileName, str]  # all other files → SHA-256 in hex
    size_bytes: int | None = None  # of the weights, as in the record; null in exports of 0.1.0
    readme: str | None = None  # SHA-256 of README.md, which may be edited before loading; null in exports of 0.1.0
    own: str | None = None  # SHA-256 of all of the above; see `digest_of`


def read(folder: Path) -> Manifest:
    """Read the manifest of a folder, and check that the folder's files match it.

    Raises:
        ExportError: the manifest is missing or of another format, or a file is missing, extra or changed.
    """
    manifest = _read(folder)
    _check_files(folder, manifest.files, ignored={NAME, README})
    return manifest


def check(folder: Path, cell_id: str) -> Manifest:
    """Check that a folder is as it was exported for a cell, including README and manifest.

    Raises:
        ExportError: what differs.
    """
    manifest = _read(folder)
    stated = json.loads((folder / NAME).read_bytes())
    if manifest.own not in (None, digest_of(stated)):
        raise ExportError(f"{folder} is not as it was exported: it has changed files: {NAME}")
    if manifest.cell_id != cell_id:
        raise ExportError(f"{folder} is not as it was exported: it holds the model of cell {manifest.cell_id}")
    readme = {README: manifest.readme or digest(folder / README)} if (folder / README).exists() else {README: ""}
    _check_files(folder, manifest.files | readme, ignored={NAME})
    return manifest


def digest_of(stated: Mapping[str, object]) -> str:
    """SHA-256 in hex of a manifest as JSON, without its field `own`."""
    rest = {key: value for key, value in stated.items() if key != "own"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read(folder: Path) -> Manifest:
    path = folder / NAME
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(f"{folder} has no {NAME}: give a folder that export.dir=DIR wrote") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ExportError(f"{path} is not a manifest of format {FORMAT}: {where}: {first['msg']}") from None
    return manifest


def _check_files(folder: Path, files: Mapping[str, str], ignored: set[str]) -> None:
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - ignored
    changed = {name for name in files.keys() & there if digest(folder / name) != files[name]}
    found = {
        "lacks": files.keys() - there,
        "has unlisted files:": there - files.keys(),
        "has changed files:": changed,
    }
    if wrong := [f"{what} {some(names)}" for what, names in found.items() if names]:
        raise ExportError(f"{folder} is not as it was exported: it {'; it '.join(wrong)}")


def digests(folder: Path) -> dict[str, str]:
    """Compute `Manifest.files` of a folder."""
    return {path.name: digest(path) for path in sorted(folder.iterdir()) if path.name not in (NAME, README)}


def digest(path: Path) -> str:
    """SHA-256 of a file in hex; for anything but a regular file, a text that equals no digest."""
    if not path.is_file():
        return "no file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
