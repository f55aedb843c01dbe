"""Languages written without spaces, which are scored by character."""

from __future__ import annotations

from typing import Literal

ErrorUnit = Literal["word", "character"]
RATES: dict[ErrorUnit, str] = {"word": "WER", "character": "CER"}

# Whisper's paper scores zh, ja, th, lo and my by character (Radford et al. 2022, appendix C). The same applies to yue,
# which is written like zh; to km, which like th, lo and my needs a dictionary to be split into words (Unicode Standard
# Annex 14, class SA); and to bo, which marks syllables but not words. Korean and Vietnamese have spaces, and Whisper's
# Javanese (jw) is in Latin letters.
SPACELESS = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km", "bo"})


def is_spaceless(language: str) -> bool:
    """Whether a language (Whisper's code) is written without spaces between words."""
    return language in SPACELESS


def error_unit(language: str) -> ErrorUnit:
    """The unit of error rates in a language: word or character."""
    return "character" if is_spaceless(language) else "word"
