"""Quoting of values for Hydra's grammar and for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.-]*")  # no character is special to Hydra
_WORDS = {None: "null", True: "true", False: "false"}


def override(key: str, value: Any) -> str:
    """`key=value` quoted so that Hydra parses it back to this value, also in a sweep."""
    return f"{key}={hydra(value)}"


def hydra(value: Any) -> str:
    """A value in Hydra's grammar: null, a boolean, a number, a string, or a list or mapping of these."""
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
    """A string, quoted where Hydra would parse it as something else; interpolations are escaped."""
    if _BARE.fullmatch(value) and value.lower() not in _WORDS.values() and not _is_number(value):
        return value
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    # a backslash is literal unless a quote follows
    inside = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), plain)
    return f'"{inside}"'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def shell(argument: str) -> str:
    """A shell argument on one line; unprintable characters use the $'…' syntax of bash and zsh."""
    if argument.isprintable():
        return shlex.quote(argument)
    plain = argument.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{''.join(c if c.isprintable() else _escape(c) for c in plain)}'"


def _escape(character: str) -> str:
    undecoded = "\udc80" <= character <= "\udcff"  # an argument's byte that was not valid UTF-8
    return "".join(
        f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape" if undecoded else "surrogatepass")
    )
