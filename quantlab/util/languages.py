"""How languages are written, as far as scoring depends on it."""

from __future__ import annotations

from typing import Literal

ErrorUnit = Literal["word", "character"]
RATES: dict[ErrorUnit, str] = {"word": "WER", "character": "CER"}

# Written without spaces between words. Whisper's paper scores zh, ja, th, lo and my by character (Radford et al. 2022,
# appendix C). By their script the same holds for yue, written as zh is; for km, which needs a dictionary to be broken
# into words as th, lo and my do (Unicode Standard Annex 14, class SA); and for bo, which marks syllables and no words.
# Korean and Vietnamese have spaces, and Whisper's Javanese (jw) is in Latin letters.
SPACELESS = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km", "bo"})


def is_spaceless(language: str) -> bool:
    """Whether words are written without spaces between them; a code of Whisper's."""
    return language in SPACELESS


def error_unit(language: str) -> ErrorUnit:
    """What an error rate counts in this language."""
    return "character" if is_spaceless(language) else "word"
