"""Escaping of untrusted text for output: control characters and line breaks in names, reasons, transcripts.

Control characters drive a terminal, direction marks reverse the text after them, and a line break forges a line.
Every output escapes its text here first, and then for its own markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

JOINERS = "\u200c\u200d"  # zero width; needed in Persian and Indic scripts


def printable(text: str, keep: str = "") -> str:
    r"""Escape control characters, line breaks, direction marks and lone surrogates: `\x1b`.

    Args:
        text: text of any origin.
        keep: characters not to escape, such as the line breaks of a traceback.
    """
    return text if text.isprintable() else "".join(_escaped(letter, keep) for letter in text)


# Underscores within words need no escape, and brackets only where a link could follow. Marks of headings, lists and
# rules matter only at the start.
_MARKDOWN = re.compile(
    r"[\\`*<>|&~$]|(?<!\w)_|_(?!\w)|(?<=\])[(\[:]|^[#+=-](?=[\s#+=-]|$)|(?<=^\d)[.)](?=\s)|(?<=^\d\d)[.)](?=\s)"
)


def markdown(text: str) -> str:
    """Escape text for Markdown: nothing in it is markup, and a line break does not end a table row."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(" ".join(text.split())))


def _escaped(letter: str, keep: str) -> str:
    if letter.isprintable() or letter in JOINERS or letter in keep or unicodedata.category(letter) == "Zs":
        return letter
    return repr(letter)[1:-1]


def printable_parts(value: Any, keep: str = "") -> Any:
    """A JSON value with every string in it made printable, including keys."""
    if isinstance(value, str):
        return printable(value, keep)
    if isinstance(value, Mapping):
        return {printable_parts(key): printable_parts(part, keep) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [printable_parts(part, keep) for part in value]
    return value
