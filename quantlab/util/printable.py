"""Text from outside made safe to print: control characters and line breaks in names, reasons, transcripts.

A terminal obeys what stands in them, a mark of direction turns around what follows, and a line break forges a line.
Every output passes what it shows through here, and then through the escape of its own markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

JOINERS = "\u200c\u200d"  # without width; Persian and the scripts of India are not written without them


def printable(text: str, keep: str = "") -> str:
    r"""The text with each control character, line break, mark of direction and lone surrogate written out: `\x1b`.

    Args:
        text: of any origin.
        keep: characters that stay as they are, such as the line breaks of a traceback.
    """
    return text if text.isprintable() else "".join(_shown(letter, keep) for letter in text)


# An underscore within a word is one, and brackets are a link only before what says where it leads. What begins a
# heading, a list or a rule does so only at the start.
_MARKDOWN = re.compile(
    r"[\\`*<>|&~$]|(?<!\w)_|_(?!\w)|(?<=\])[(\[:]|^[#+=-](?=[\s#+=-]|$)|(?<=^\d)[.)](?=\s)|(?<=^\d\d)[.)](?=\s)"
)


def markdown(text: str) -> str:
    """As text in Markdown: nothing in it is markup, and a line break does not end a table's line."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(" ".join(text.split())))


def _shown(letter: str, keep: str) -> str:
    if letter.isprintable() or letter in JOINERS or letter in keep or unicodedata.category(letter) == "Zs":
        return letter
    return repr(letter)[1:-1]


def printable_parts(value: Any, keep: str = "") -> Any:
    """A JSON value with every text in it printable, keys too."""
    if isinstance(value, str):
        return printable(value, keep)
    if isinstance(value, Mapping):
        return {printable_parts(key): printable_parts(part, keep) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [printable_parts(part, keep) for part in value]
    return value
