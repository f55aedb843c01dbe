"""Files of a bundle, and what is in them.

<bundle>/README.md, measure.py, requirements.txt
<bundle>/bundle.json          what measure.py needs, and the SHA-256 of every file
<bundle>/filters.npy          mel filter bank, float64, (frequencies, mel bins)
<bundle>/clips/00000.wav      16-bit, 16 kHz, mono
<bundle>/models/<number>/     the files of an export that its engine reads
<bundle>/home/home.json       what only quantlab needs: settings, receipts, references
<bundle>/home/<number>/       tokenizer of an export
<bundle>/measured/<device>.json  what measure.py writes
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from quantlab.config.quant import QuantConfig
from quantlab.models.decoding import Decoding
from quantlab.records.part import Count, Divisor, Part, Text
from quantlab.records.schema import OriginalFile, Problem, Receipt
from quantlab.util.errors import ConfigError
from quantlab.util.files import read_bytes

BUNDLE, README, REQUIREMENTS, SCRIPT = "bundle.json", "README.md", "requirements.txt", "measure.py"
FILTERS, CLIPS, MODELS, HOME, MEASURED = "filters.npy", "clips", "models", "home", "measured"
HOME_FILE = f"{HOME}/home.json"
MOST_BYTES = 1 << 30  # of a JSON file
VERSION: Final = 1

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$", max_length=200)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Read = TypeVar("Read", bound=BaseModel)


class ClipFile(Part):
    """A clip as measure.py reads it."""

    file: FileName
    audio_s: Divisor


class Features(Part):
    """Settings of the features, all in samples."""

    n_samples: Annotated[int, Field(gt=0, le=2**31)]  # of the window
    n_fft: Annotated[int, Field(gt=0, le=2**20)]
    hop_length: Annotated[int, Field(gt=0, le=2**20)]


class Rows(Part):
    """Rows of whisper.cpp's vocabulary, and its options."""

    to_file: tuple[Count, ...] | None  # row of each token id; null: the rows are the ids
    spare: Count  # token id of all other rows
    end: Count  # row
    options: dict[str, Any]  # of whisper_full


class Model(Part):
    """An exported model as measure.py runs it."""

    label: str
    library: Literal["ggml", "ct2", "ort"]
    package: str  # on PyPI
    folder: FileName
    decoding: Decoding
    compute_type: str | None = None  # CTranslate2
    max_length: Count | None = None  # CTranslate2
    rows: Rows | None = None  # whisper.cpp


class BundleFile(Part):
    """Content of bundle.json."""

    format: Literal["quantlab bundle"] = "quantlab bundle"
    version: Literal[1] = VERSION
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    clips: Annotated[tuple[ClipFile, ...], Field(min_length=1)]
    features: Features
    files: dict[FileName, Sha256]  # all but bundle.json and the README
    own: Sha256 | None = None  # of all of the above, see `digest_of`


class HomeClip(Part):
    """A clip as quantlab scores it."""

    id: str
    split: str
    speaker: str | None
    text: Text


class HomeModel(Part):
    """What quantlab knows of an export."""

    cell_id: str  # of the cell that was exported
    config: dict[str, Any]  # of that cell, without places on the machine
    fingerprints: dict[str, str]
    original: OriginalFile | None
    receipt: Receipt
    versions: dict[str, str]  # of what made the model
    calibration_ids: tuple[str, ...]
    tokenizer: FileName
    baseline: Count | None  # number of the model that it is compared with, its own if others are

    @property
    def quant(self) -> QuantConfig:
        """The quantizer."""
        return QuantConfig.model_validate(self.config["quant"])


class HomeFile(Part):
    """Content of home.json."""

    models: tuple[HomeModel, ...]
    clips: tuple[HomeClip, ...]
    dataset: dict[str, Any]  # configuration of the corpus; of its path only the name
    corpus: str  # fingerprint of the corpus, or of its clips if these were rounded
    keywords: tuple[Text, ...] | None
    keywords_mark: str | None  # fingerprint
    problems: tuple[Problem, ...]  # of utterances that are no clip, or doubtful
    versions: dict[str, str]  # of what decoded the audio


def digest_of(stated: Mapping[str, object]) -> str:
    """SHA-256 in hex of bundle.json without its field `own`; measure.py computes it too."""
    rest = {key: value for key, value in stated.items() if key != "own"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex; for anything but a regular file, a text that equals no digest."""
    if not path.is_file():
        return "no file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(kind: type[Read], path: Path, what: str) -> Read:
    """Read a file of a bundle.

    Raises:
        ConfigError: it is missing, or not what it should be.
    """
    try:
        return kind.model_validate_json(read_bytes(path.resolve(), MOST_BYTES))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; it is {what}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path} is not {what}: {where}: {first['msg']}") from None


def read_bundle(folder: Path) -> tuple[BundleFile, HomeFile]:
    """Read a bundle, and check that each of its files is as it was written.

    Raises:
        ConfigError: a file is missing or changed; names it.
    """
    again = "make the bundle again, with quantlab bundle"
    found = read_json(BundleFile, folder / BUNDLE, "the list of a bundle made by quantlab bundle")
    if found.own != digest_of(json.loads((folder / BUNDLE).read_bytes())):
        raise ConfigError(f"{folder / BUNDLE} is not as it was bundled (SHA-256): restore it, or {again}")
    for name, digest in found.files.items():
        if (now := sha256(folder / name)) != digest:
            what = "is missing" if now == "no file" else "is not as it was bundled (SHA-256)"
            raise ConfigError(f"{folder / name} {what}: restore it, or {again}")
    return found, read_json(HomeFile, folder / HOME_FILE, "the list of a bundle made by quantlab bundle")
