"""Redaction of secrets in everything that is printed or stored.

Settings hold no secrets: `quantlab.config.parse` refuses them (`why_secret`), except for the address of the tracking
server, which shows only its host (`quantlab.util.address`). What remains is text from elsewhere: messages of
libraries, and environments that they print. Configurations are not searched for secret values, since `torch_int8` is
a quantizer even if it is somebody's password.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from quantlab.util.resources import shared_dir

HIDDEN = "***"
_WORD = (
    r"TOKENS?|PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|PGPASSWORD|SECRETS?|CREDENTIALS?|BEARER|"
    r"API_?KEY|ACCESS_?KEY|SECRET_?KEY|PRIVATE_?KEY|AUTH_?KEY"
)
_SECRET_NAME = re.compile(rf"(?<![A-Z])(?:{_WORD})(?![A-Z])", re.IGNORECASE)  # a whole word, not TOKENIZERS
_ASSIGNED = re.compile(
    rf"""((?<![\w$])[\w.-]*(?<![A-Z])(?:{_WORD})(?![A-Z])[\w.-]*(?:["']\s*:\s*|\s*=\s*))"""  # 'HF_TOKEN': or HF_TOKEN=
    r"""("(?!\$)(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?![$`"'])[^\s,;&}\])]+)""",  # a value, but not a shell's $NAME
    re.IGNORECASE,
)
_TOKENS = re.compile(r"(?<![A-Za-z])tokens(?![A-Za-z])", re.IGNORECASE)
_NUMBER = re.compile(r"\d[\d.]*(?:e[-+]?\d+)?:?", re.IGNORECASE)  # and the colon of an error message
_SHAPES = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),  # Hugging Face token
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),  # AWS access key
    re.compile(r"(?<=Bearer )[A-Za-z0-9._~+/=-]{8,}"),
)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(\S+)")
_HOST = re.compile(r"(?:[^:\[\]]*|\[[^\]]*\])\W*(?::(?:\d*|PORT)\W*)?", re.ASCII)  # and punctuation
_SHORTEST = 8  # characters; shorter values may be ordinary words, so they are only found by their name
_SURE = 16  # characters; values at least this long are redacted inside longer words too
_LONGEST = 48  # characters; of longer values a message may show only the start
_AROUND_A_NAME = "\"' \t:="
_known: dict[str, str] = {}  # secret → replacement


def remember(address: str, shown: str, more: Iterable[str] = ()) -> None:
    """Register an address for `redact`: it is replaced by `shown`, and its parts and `more` are hidden."""
    hidden = {part for part in (*parts(address), *more) if len(part) >= _SHORTEST and not _is_ordinary(part)}
    _known.update(dict.fromkeys(hidden, HIDDEN) | {address: shown})


def redact(text: str) -> str:
    """Replace every secret in a text by `***`.

    Secrets are: user, password and query of an address; values assigned to a name like `HF_TOKEN`; tokens of a known
    format; values of environment variables that are named like a secret or hold an address; values registered by
    `remember`. A word of quantlab's own configuration, or a path on this machine, counts only if its name says so.
    """
    secrets = dict.fromkeys([*_named_secrets().values(), *_in_addresses()], HIDDEN) | _known
    for secret in sorted(secrets, key=len, reverse=True):  # longest first: one may be the start of another
        text = _without(text, secret, secrets[secret])
    text = _ASSIGNED.sub(lambda found: found[0] if _is_count(found) else found[1] + HIDDEN, bare(text))
    for shape in _SHAPES:
        text = shape.sub(HIDDEN, text)
    return text


def bare(value: Any) -> Any:
    """The same structure, with user, password and query removed from addresses in its strings."""
    if isinstance(value, str):
        return _ADDRESS.sub(lambda found: found[1] + _bare_rest(found[2]), value) if "://" in value else value
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(bare, value))
    return value


def why_secret(text: str) -> str | None:
    """Why a setting must not hold this text (settings are stored and printed); None if it may."""
    if bare(text) != text:
        return "an address with a user, a password or a query"
    if assigned := [found[1] for found in _ASSIGNED.finditer(text) if not _is_count(found)]:
        return f"the value of {assigned[0].strip(_AROUND_A_NAME)}"
    if any(shape.search(text) for shape in _SHAPES):
        return "what looks like a token"
    named = _named_secrets().items()
    return next((f"the value of {name}" for name, value in named if _without(text, value) != text), None)


def _is_count(assigned: re.Match[str]) -> bool:
    """Whether it is a number of tokens: `max_new_tokens=64`."""
    return _TOKENS.search(assigned[1]) is not None and _NUMBER.fullmatch(assigned[2]) is not None


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def _bare_rest(rest: str) -> str:
    """The part after `scheme://` without secrets; empty if user and password cannot be separated from the rest."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    _, at, host = authority.rpartition("@")
    if "@" in tail or not _HOST.fullmatch(host):
        return HIDDEN
    path, query, _ = tail.partition("#")[0].partition("?")
    return (f"{HIDDEN}@" if at else "") + host + (f"{path}?{HIDDEN}" if query else tail)


def _named_secrets() -> dict[str, str]:
    """Environment variables that are named like a secret, without those whose value is an ordinary word."""
    return {
        name: value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and is_secret(name) and not _is_ordinary(value)
    }


def _in_addresses() -> set[str]:
    """The secret parts of addresses in the environment; a proxy may lack its scheme."""
    values = [value for name, value in os.environ.items() if "://" in value or name.upper().endswith("_PROXY")]
    found = {part for value in values for part in parts(value)}
    return {part for part in found if len(part) >= _SHORTEST and not _is_ordinary(part)}


def parts(address: str) -> Iterator[str]:
    """The secret parts of an address, in the forms that a library may print; usually none.

    In a malformed address (a password with a slash) everything before the last @ is taken as user and password.
    """
    user, at, place = address.rpartition("://")[2].rpartition("@")
    path, *query = re.split("[?#]", place, maxsplit=1)
    if at or query:
        yield from (address, *path.split("/")[1:])
    if at:
        yield from (user, *user.split(":", 1), base64.b64encode(unquote(user).encode()).decode())
    for item in query:
        yield from (item, *(pair.partition("=")[2] for pair in item.split("&")))


def _without(text: str, secret: str, shown: str = HIDDEN) -> str:
    for form in {secret, unquote(secret), quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]}:
        if len(form) >= _SURE:
            text = text.replace(form, shown)
        elif len(form) >= _SHORTEST and form in text:
            text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", HIDDEN, text)
        if len(form) > _LONGEST and form[:_SURE] in text:
            text = re.sub(re.escape(form[:_SURE]) + r"""[^\s'"]*""", HIDDEN, text)
    return text


@cache
def _is_ordinary(value: str) -> bool:
    """Whether a value is a word of the shipped configuration or a path, and so not a secret."""
    if Path(value).is_absolute() and os.access(value, os.F_OK):
        return True
    word = re.compile(rf"(?<![\w-]){re.escape(value)}(?![\w-])")
    shipped = (path for name in ("conf", "experiments") for path in shared_dir(name).rglob("*.yaml"))
    return any(word.search(path.read_text(encoding="utf-8")) for path in shipped)
