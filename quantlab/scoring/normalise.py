"""Text normalisers for references and hypotheses."""

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
_INVISIBLE = re.compile(  # controls that are not whitespace, and Default_Ignorable_Code_Point of the Unicode Standard:
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)  # zero width, soft hyphen, byte order mark, direction, variants of a character
_TAG = re.compile(
    r"[<\[【][^>\]】]*[>\]】]|[(（][^)）]*[)）]"
)  # brackets as in Whisper's normaliser, and full-width ones


def default(language: str) -> Normaliser:
    """The default normaliser of a language (Whisper's code): for all but English the one that keeps combining marks."""
    return "whisper" if language == "en" else "whisper_marks"


@functools.cache
def normaliser(name: str = "whisper", language: str = "en") -> Callable[[str], str]:
    """A text normaliser by name; each is applied after `plain`.

    `whisper` is Whisper's normaliser in `transformers` (Radford et al. 2022, appendix C): for English with numbers,
    contractions and spellings; for any other language the basic one, which replaces every combining mark by a space,
    so that a Hindi vowel sign splits the word. `whisper_marks` is the same but keeps the marks. `basic` lower-cases
    and drops punctuation and bracketed text, for English too. `none` leaves the text unchanged.

    The table of British and American spellings is part of OpenAI's checkpoints, not of `transformers`. The same file
    is taken from the package `whisper-normalizer`, so that every model is scored alike.

    Raises:
        ValueError: unknown name.
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
    """Like Whisper's `remove_symbols`, but keeps marks (category M)."""
    return "".join(" " if unicodedata.category(c)[0] in "SP" else c for c in unicodedata.normalize("NFKC", text))


def plain(text: str) -> str:
    """The visible text: straight quotes, no invisible characters, single spaces, composed (NFC)."""
    seen = _INVISIBLE.sub("", text.translate(_QUOTES))
    return unicodedata.normalize("NFC", " ".join(seen.split()))


def is_wordless(reference: str) -> bool:
    """Whether a reference has no words: it is empty, punctuation, or tags such as `[silence]`."""
    return not any(letter.isalnum() for letter in _TAG.sub(" ", plain(reference)))
