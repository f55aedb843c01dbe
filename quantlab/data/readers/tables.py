"""Tabular files of utterances: JSON, JSON Lines, TSV, CSV."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError, shortened
from quantlab.util.files import opened

LARGEST_BYTES = 2**30  # limit for a listing, decompressed
EXAMPLE = '{"audio": "clips/1.flac", "text": "hello there"}'
FORMATS = "one JSON object per line, an array of them, TSV or CSV with a header line, or a Kaldi folder"


class Row(NamedTuple):
    """One row of a listing."""

    place: str  # file:line
    values: Any  # a mapping, if the row is valid


def text_of(path: Path) -> str:
    """Read a text file in UTF-8, UTF-16 or UTF-32, optionally gzipped, without its byte order mark.

    Raises:
        OSError: it cannot be read, is not a regular file, or is too large.
        UnicodeDecodeError: it is not text.
    """
    with opened(path, LARGEST_BYTES) as file:
        content = file.read()
    if path.suffix == ".gz":
        with gzip.open(io.BytesIO(content)) as unpacked:
            content = unpacked.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise OSError(None, f"more than {LARGEST_BYTES:,} bytes once decompressed", str(path))
    return content.decode(json.detect_encoding(content)).removeprefix("\ufeff")


def not_utf8(error: UnicodeDecodeError) -> str:
    """The end of a sentence on a file in an unknown encoding: `:LINE is not …`, and how to convert it."""
    content = error.object
    if error.encoding != "utf-8" or b"\0" in content:
        return f" is not UTF-8 text ({error.reason})"
    line = content.count(b"\n", 0, error.start) + 1
    return (
        f":{line} is not UTF-8 text (byte {content[error.start]:#x}): if it is Latin-1 or Windows-1252, convert it: "
        "iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
    )


def rows(path: Path) -> Iterator[Row]:
    """The rows of a listing, in order.

    Raises:
        ConfigError: not a listing, or an invalid row (`file:line`).
    """
    try:
        text = text_of(path)
    except (OSError, EOFError, zlib.error) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(f"dataset.path={path}: {why}; expected {FORMATS}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"dataset.path={path}{not_utf8(error)}; expected {FORMATS}") from None
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind.lower() in (".tsv", ".csv"):
        return _delimited(path, text, "\t" if kind.lower() == ".tsv" else _delimiter(text))
    array = _array(text)
    if array is not None:
        return (Row(f"{path}: item {number}", item) for number, item in enumerate(array, start=1))
    return _objects(path, text)


def _array(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):  # the error is reported per line
        return None
    return found if all(isinstance(item, dict) for item in found) else None


def _objects(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Row(f"{path}:{number}", json.loads(line, object_pairs_hook=_object))
        except (ValueError, RecursionError) as error:
            what = _plain_text(path, line) or f"not JSON ({error})"
            raise ConfigError(f"{path}:{number}: {what}; expected {FORMATS}, e.g. {EXAMPLE}") from None


def _plain_text(path: Path, line: str) -> str | None:
    """What a line of plain text is instead of a row, and which option reads it; None if it is not plain text."""
    if line.lstrip().startswith(("{", "[", '"')) or not line.strip().replace("\t", " ").isprintable():
        return None
    if path.name.endswith(".trans.txt"):
        return "a transcript of LibriSpeech: set dataset=librispeech_dir dataset.path=FOLDER, which holds test-clean/"
    if (path.parent / "wav.scp").is_file():
        return f"a file of a Kaldi folder: set dataset.path={path.parent}"
    return "plain text, not a row with audio and text"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; duplicate keys are refused, since one value would be dropped."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {shortened(next(name for name in names if names.count(name) > 1))} appears twice")
    return found


def _delimiter(text: str) -> str:
    """The delimiter of a CSV: spreadsheets write semicolons in many countries."""
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def _delimited(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    """Rows of TSV, without quoting as in Common Voice, or of CSV, where an unclosed quote is an error."""

    class Dialect(csv.excel):
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        strict = True

    lines = csv.reader(io.StringIO(text, newline=""), Dialect, delimiter=delimiter)
    header: list[str] | None = None
    try:
        for fields in lines:
            if not any(field.strip() for field in fields):
                continue
            if header is None:
                header = _header(path, fields)
                continue
            if len(fields) != len(header):
                raise ConfigError(
                    f"{path}:{lines.line_num}: {counted(len(fields), 'field')}, but {counted(len(header), 'column')}"
                )
            values = {name: field or None for name, field in zip(header, fields, strict=True) if name}
            yield Row(f"{path}:{lines.line_num}", values)
    except csv.Error as error:
        raise ConfigError(f"{path}:{lines.line_num}: {error}") from None


def _header(path: Path, fields: list[str]) -> list[str]:
    names = [field.strip() for field in fields]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: the first line names the column {shortened(twice[0])} twice")
    return names
