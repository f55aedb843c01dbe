"""A baseline that a team commits: the records of some cells in one small file, with hashes instead of texts.

A gzip file of JSON, with the same bytes for the same records. Ids of utterances and all texts are hashed and speakers
numbered, so that the file shows whether they changed but not what was said. Local paths are reduced to names.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json

from quantlab.config.key_names import KEYS
from quantlab.records import storage
from quantlab.records.part import Part
from quantlab.records.schema import Batch, Record, Utterance
from quantlab.util.errors import ConfigError, shortened
from quantlab.util.files import read_bytes

VERSION = 1
FORMAT = "quantlab baseline"
PACKED_BYTES = 16 << 20  # maximum size; a cell of 500 utterances has 0.03 MB
UNPACKED_BYTES = 128 << 20
MAGIC = b"\x1f\x8b"  # of gzip
_DIGITS = 16  # hex digits of a hash: two of 10^5 texts agree by chance once in 4 × 10^9 baselines
PATHS = tuple(sorted(key for key in KEYS if key.endswith(".path") or key == "dataset.keywords"))
_LOCAL = ("output_dir", "tracking", "export")  # sections that change no figure

Hash = Annotated[str, Field(pattern=f"^[0-9a-f]{{{_DIGITS}}}$")]
Errors = Annotated[int, Field(ge=0, le=2**40)]  # sums are exact


class Scored(Part):
    """The counts of the utterances with speech, one entry for each, in the order of measurement."""

    split: tuple[str, ...]
    id: tuple[Hash, ...]
    speaker: tuple[Errors | None, ...]  # numbered
    reference: tuple[Hash, ...]
    hypothesis: tuple[Hash, ...]
    errors: tuple[Errors, ...]  # S + D + I, in the record's error unit
    words: tuple[Errors, ...]  # of the normalised reference
    char_errors: tuple[Errors, ...]
    chars: tuple[Errors, ...]

    @model_validator(mode="after")
    def _is_whole(self) -> Scored:
        if len({len(getattr(self, name)) for name in type(self).model_fields}) != 1:
            raise ValueError("its columns differ in length")
        if len(set(self.keys)) != len(self.id):
            raise ValueError("an utterance is there twice")
        return self

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """Split and hashed id of each utterance."""
        return tuple(zip(self.split, self.id, strict=True))


class Packed(Part):
    """A measured cell without its texts."""

    record: Record  # without modules of the receipt, problems, and local paths
    utterances: Scored
    batches: tuple[Batch, ...]  # free-running calls of the cell alone

    @model_validator(mode="after")
    def _adds_up(self) -> Packed:
        if self.record.status != "ok":
            raise ValueError(f"status={self.record.status}: only a cell that was measured can be a baseline")
        rows = self.utterances
        for name, stored in self.record.splits.items():
            chosen = [index for index, split in enumerate(rows.split) if split == name]
            columns = (rows.errors, rows.words, rows.char_errors, rows.chars)
            found = [sum(column[index] for index in chosen) for column in columns]
            if found != [stored.errors, stored.ref_words, stored.char_errors, stored.ref_chars]:
                raise ValueError(f"the counts of split {shortened(name)} do not add up to its figures")
        if strange := set(rows.split) - set(self.record.splits):
            raise ValueError(f"utterances of a split without figures: {shortened(min(strange))}")
        return self


class Bundle(Part):
    """The content of the file."""

    format: Literal["quantlab baseline"] = "quantlab baseline"
    version: Literal[1] = 1
    cells: Annotated[tuple[Packed, ...], Field(min_length=1)]


def pack(root: str | Path, record: Record) -> Packed:
    """Pack a record of a root.

    Raises:
        ValueError: it was not measured, has no text to score, or its raw files are damaged; the message says which.
        OSError: a raw file cannot be read.
    """
    folder = storage.cells_dir(root) / record.cell_id
    if record.status != "ok":
        raise ValueError(f"its status is {record.status}")
    if record.stopped_early:
        raise ValueError("it stopped early (protocol.looks), on a part of the corpus; measure it with protocol=paper")
    utterances, batches = storage.read_utterances(root, record.cell_id), storage.read_batches(root, record.cell_id)
    if record.digests and record.digests != storage.digests(folder):
        raise ValueError("its raw files have changed since; quantlab verify shows what differs")
    speech = [item for item in utterances if not item.nonspeech]
    if not speech or any(item.errors is None for item in speech):
        raise ValueError("it has no text to compare")
    alone = tuple(item for item in batches if item.of == "cell" and item.work == "natural" and item.block is None)
    return Packed(record=_slim(record), utterances=_scored(speech), batches=alone)


def _scored(utterances: Sequence[Utterance]) -> Scored:
    speakers = dict.fromkeys(item.speaker for item in utterances if item.speaker is not None)
    number = {name: index for index, name in enumerate(speakers)}
    counts = [(item.substitutions or 0, item.deletions or 0, item.hits or 0) for item in utterances]
    return Scored(
        split=tuple(item.split for item in utterances),
        id=tuple(_hashed(item.id) for item in utterances),
        speaker=tuple(None if item.speaker is None else number[item.speaker] for item in utterances),
        reference=tuple(_hashed(item.id, item.reference) for item in utterances),
        hypothesis=tuple(_hashed(item.id, item.hypothesis or "") for item in utterances),
        errors=tuple(item.errors or 0 for item in utterances),
        words=tuple(map(sum, counts)),
        char_errors=tuple(item.char_errors or 0 for item in utterances),
        chars=tuple(item.ref_chars or 0 for item in utterances),
    )


def _hashed(*texts: str) -> str:
    """A hash of texts; that of an utterance's text includes its id, so that equal texts do not show."""
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:_DIGITS]


def _slim(record: Record) -> Record:
    """The record without what a comparison does not need, or what should not leave the machine."""
    record = storage.public(record)
    config = without_places(record.config)
    receipt = record.receipt and record.receipt.model_copy(update={"modules": ()})
    splits = {
        name: split.model_copy(update={"keywords": None, "word_times": None}) for name, split in record.splits.items()
    }
    less: dict[str, Any] = {"config": config, "receipt": receipt, "splits": splits}
    less |= {"digests": {}, "problems": (), "calibration_ids": (), "keywords": None}
    return record.model_copy(update=less)


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without sections that change no figure; paths are reduced to names."""
    config = {name: part for name, part in config.items() if name not in _LOCAL}
    for key in PATHS:
        *sections, last = key.split(".")
        config = _with_name_only(config, sections, last)
    return config


def _with_name_only(config: dict[str, Any], sections: Sequence[str], key: str) -> dict[str, Any]:
    """A copy of the configuration in which a path is the name of its file."""
    if sections:
        part = config.get(sections[0])
        return config | {sections[0]: _with_name_only(part, sections[1:], key)} if isinstance(part, dict) else config
    return config | {key: PurePath(str(config[key])).name} if config.get(key) else config


def write(path: Path, cells: Iterable[Packed]) -> int:
    """Write a baseline; the same cells give the same bytes.

    Returns:
        Its size in bytes.

    Raises:
        ConfigError: it is larger than what can be read again.
        OSError: the file cannot be written.
    """
    bundle = Bundle(cells=tuple(sorted(cells, key=lambda cell: cell.record.cell_id)))
    text = json.dumps(bundle.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    packed = gzip.compress(text.encode("ascii"), mtime=0)
    if len(packed) > PACKED_BYTES or len(text) > UNPACKED_BYTES:
        size = f"{len(packed) / 1e6:.1f} MB packed, {len(text) / 1e6:.1f} MB unpacked"
        most = f"{PACKED_BYTES / 1e6:.1f} and {UNPACKED_BYTES / 1e6:.1f} MB"
        raise ConfigError(f"a baseline of these cells has {size}, at most {most} can be read: name fewer cells")
    path.write_bytes(packed)
    return len(packed)


def read(path: Path) -> Bundle:
    """Read a baseline.

    Raises:
        ConfigError: the file cannot be read, is no baseline, or has another version of the format.
    """
    try:
        text = _unpacked(read_bytes(path.resolve(), PACKED_BYTES))
        content = from_json(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, EOFError, zlib.error) as error:
        raise _no_baseline(path, str(error).split("\n")[0]) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _no_baseline(path, f"no {FORMAT!r} in it")
    if content.get("version") != VERSION:
        raise ConfigError(
            f"{path}: version {shortened(content.get('version'))} of the format, this quantlab reads version "
            f"{VERSION}: make the baseline again with this quantlab (quantlab baseline), or use the one that made it"
        )
    try:
        return Bundle.model_validate_json(text)
    except ValidationError as error:
        raise _no_baseline(path, _why(error)) from None


def _unpacked(packed: bytes) -> bytes:
    """Unpack one gzip member, at most UNPACKED_BYTES.

    Raises:
        ValueError, zlib.error: it is larger, cut off, or not gzip.
    """
    reader = zlib.decompressobj(wbits=31)
    content = reader.decompress(packed, UNPACKED_BYTES)
    if reader.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {UNPACKED_BYTES:,} bytes")
    if not reader.eof or reader.unused_data:
        raise ValueError("the gzip data are cut off, or something follows them")
    return content


def _why(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(shortened(part).strip(chr(39)) for part in first['loc'])}: {first['msg']}"


def _no_baseline(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path} is not a baseline: {why}; if it was one, restore it (version control), else make one: quantlab "
        "baseline --out baseline.json.gz"
    )
