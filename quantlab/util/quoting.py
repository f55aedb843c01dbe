"""Quoting of values for Hydra's grammar and for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.-]*")  # nothing in it means something to Hydra
_WORDS = {None: "null", True: "true", False: "false"}


def override(key: str, value: Any) -> str:
    """`key=value` for Hydra, which reads it back as this value, also in a sweep."""
    return f"{key}={hydra(value)}"


def hydra(value: Any) -> str:
    """A value in Hydra's grammar: null, true, a number, text, a list or a mapping of these."""
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_text(str(key))}:{hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(hydra, value)) + "]"
    return str(value)


def _text(value: str) -> str:
    """Quoted where it would be read as something else; an interpolation is escaped."""
    if _BARE.fullmatch(value) and value.lower() not in _WORDS.values() and not _is_number(value):
        return value
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    # a backslash is one, unless a quote follows
    inside = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), plain)
    return f'"{inside}"'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def shell(argument: str) -> str:
    """An argument for a shell, on one line: what cannot be printed as $'…' has it, which bash and zsh know."""
    if argument.isprintable():
        return shlex.quote(argument)
    plain = argument.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{''.join(c if c.isprintable() else _escape(c) for c in plain)}'"


def _escape(character: str) -> str:
    undecoded = "\udc80" <= character <= "\udcff"  # a byte of an argument that was no UTF-8
    return "".join(
        f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape" if undecoded else "surrogatepass")
    )
