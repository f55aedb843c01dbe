"""Types of single values of a configuration, with what each of them may be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from quantlab.util.address import Address

MOST = 1_000_000  # of what is counted: above any real figure, and still no burden
_LARGEST_SEED = 2**32 - 1  # NumPy's
_LONGEST_S = 31_536_000  # a year; a clock takes no infinity


def _as_tuple(value: object) -> object:
    """Hydra hands over lists; frozen models hold tuples."""
    return tuple(value) if isinstance(value, list) else value


def _printable(name: str) -> str:
    if not name.isprintable():
        raise PydanticCustomError("name", "a name holds what can be printed, and no line break")
    return name


def _language(code: str) -> str:
    if not re.fullmatch("[a-z]{2,3}", code):
        raise PydanticCustomError("language", "expected a code of two or three letters as Whisper has it, e.g. en, yue")
    return code


def _address(text: str) -> str:
    try:
        return Address(text)
    except ValueError as error:
        raise PydanticCustomError("address", "tracking.uri: {why}", {"why": str(error)}) from None


def _file_path(path: str) -> str:
    if not path:
        raise PydanticCustomError("path", "it is empty")
    if "\0" in path:
        raise PydanticCustomError("path", "no path holds a NUL")
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise PydanticCustomError("path", "no user of this machine has such a home") from None
    return path


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
SomeNames = Annotated[Names, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]  # what a person calls it
FilePath = Annotated[str, AfterValidator(_file_path)]  # of a file or a folder
Language = Annotated[str, AfterValidator(_language)]  # a code of Whisper's
ServerAddress = Annotated[str, AfterValidator(_address)]
Count = Annotated[int, Field(gt=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=_LARGEST_SEED)]
Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S)]
Target = Literal["all", "encoder", "decoder"]
AudioContext = Literal["full", "dynamic"]
Dtype = Literal["float32", "float16", "bfloat16"]
Backend = Literal["pytorch", "aten", "torchao_int4", "gemlite", "marlin"]
