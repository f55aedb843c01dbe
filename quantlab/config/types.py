"""Types of single configuration values, with their allowed ranges."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from quantlab.util.address import Address

MOST = 1_000_000  # upper limit of counts: above any realistic value, yet harmless
MOST_JOBS = 1024  # cells side by side on one machine
_LARGEST_SEED = 2**32 - 1  # NumPy's
_LONGEST_S = 31_536_000  # a year; timers accept no infinity


def _as_tuple(value: object) -> object:
    """Convert Hydra's lists to tuples, which frozen models need."""
    return tuple(value) if isinstance(value, list) else value


def _printable(name: str) -> str:
    if not name.isprintable():
        raise PydanticCustomError("name", "a name may hold only printable characters, and no line break")
    return name


def _language(code: str) -> str:
    if not re.fullmatch("[a-z]{2,3}", code):
        raise PydanticCustomError("language", "expected a code of two or three letters as in Whisper, e.g. en, yue")
    return code


def _address(text: str) -> str:
    try:
        return Address(text)
    except ValueError as error:
        raise PydanticCustomError("address", "tracking.uri: {why}", {"why": str(error)}) from None


def _jobs(jobs: object) -> object:
    whole = isinstance(jobs, int) and not isinstance(jobs, bool)
    if jobs != "auto" and not (whole and 1 <= jobs <= MOST_JOBS):  # type: ignore[operator]
        raise PydanticCustomError("jobs", "expected a whole number of cells from 1 to 1,024, or auto")
    return jobs


def _file_path(path: str) -> str:
    if not path:
        raise PydanticCustomError("path", "it is empty")
    if "\0" in path:
        raise PydanticCustomError("path", "a path cannot hold a NUL")
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise PydanticCustomError("path", "no user of this machine has this home folder") from None
    return path


Jobs = Annotated[int | Literal["auto"], BeforeValidator(_jobs)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
SomeNames = Annotated[Names, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]  # a display name
FilePath = Annotated[str, AfterValidator(_file_path)]  # path of a file or folder
Language = Annotated[str, AfterValidator(_language)]  # Whisper's language code
ServerAddress = Annotated[str, AfterValidator(_address)]
Count = Annotated[int, Field(gt=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=_LARGEST_SEED)]
Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S)]
Target = Literal["all", "encoder", "decoder"]
AudioContext = Literal["full", "dynamic"]
Family = Literal["whisper", "moonshine", "ctc"]
Dtype = Literal["float32", "float16", "bfloat16"]
Method = Literal["rtn", "hqq", "gptq"]
Backend = Literal["pytorch", "aten", "torchao_int4", "gemlite", "marlin"]
