"""Text normalisers, applied to reference and hypothesis before they are compared."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Literal, get_args

from quantlab.util.errors import did_you_mean

Normaliser = Literal["whisper", "whisper_marks", "basic", "none"]
NORMALISERS: tuple[Normaliser, ...] = get_args(Normaliser)

_QUOTES = str.maketrans({**dict.fromkeys("‘’‚‛′´＇", "'"), **dict.fromkeys("“”„‟″＂", '"')})
_INVISIBLE = re.compile(  # controls that are no whitespace, and Default_Ignorable_Code_Point of the Unicode Standard:
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)  # zero width, soft hyphen, byte order mark, direction, variants of a character
_TAG = re.compile(r"[<\[【][^>\]】]*[>\]】]|[(（][^)）]*[)）]")  # brackets of Whisper's normaliser, and full-width ones


def default(language: str) -> Normaliser:
    """The normaliser of a language, a code of Whisper's: for all but English the one that keeps combining marks."""
    return "whisper" if language == "en" else "whisper_marks"


@functools.cache
def normaliser(name: str = "whisper", language: str = "en") -> Callable[[str], str]:
    """A text normaliser by its name; each is given the text as `plain` has it.

    `whisper` is Whisper's as `transformers` has it (Radford et al. 2022, appendix C): for English with its numbers,
    contractions and spellings, for any other language the basic one, which puts a space in place of every combining
    mark: a vowel sign of Hindi ends the word. `whisper_marks` is the same but for the marks, which stay. `basic`
    lower-cases and drops punctuation and what is in brackets in English too, `none` leaves the text as it is.

    The table of British and American spellings comes with OpenAI's checkpoints and not with `transformers`; the
    package `whisper-normalizer` carries the same file, so that every model is scored alike.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in NORMALISERS:
        raise ValueError(f"no normaliser {name!r}{did_you_mean(name, list(NORMALISERS))}")
    if name == "none":
        return plain
    named = _whisper(name, language)
    return lambda text: named(plain(text)).strip()


def _whisper(name: str, language: str) -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if language == "en" and name != "basic":
        table = importlib.resources.files("whisper_normalizer") / "normalizers" / "english.json"
        return EnglishTextNormalizer(json.loads(table.read_text(encoding="utf-8")))
    found = BasicTextNormalizer()
    if name == "whisper_marks":
        found.clean = _without_symbols
    return found


def _without_symbols(text: str) -> str:
    """As Whisper's `remove_symbols`, which removes marks (category M) as well."""
    return "".join(" " if unicodedata.category(c)[0] in "SP" else c for c in unicodedata.normalize("NFKC", text))


def plain(text: str) -> str:
    """What a reader sees: quotes straight, nothing invisible, one space for whitespace of any kind, composed (NFC)."""
    seen = _INVISIBLE.sub("", text.translate(_QUOTES))
    return unicodedata.normalize("NFC", " ".join(seen.split()))


def is_wordless(reference: str) -> bool:
    """Whether a reference says that nothing was spoken: it is empty, punctuation, or tags such as `[silence]`."""
    return not any(letter.isalnum() for letter in _TAG.sub(" ", plain(reference)))
