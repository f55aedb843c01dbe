"""Removal of secrets from everything that is printed or stored.

A setting holds none: what would be one is refused (`exposed`, asked by `quantlab.config.parse`), but for the address of
the tracking server, which shows no more than its host (`quantlab.util.address`). What is left is text of others: the
message of a library, the environment that it prints. A configuration is never looked through for values, since
`torch_int8` is a quantizer whatever somebody's password is.
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
_SECRET_NAME = re.compile(rf"(?<![A-Z])(?:{_WORD})(?![A-Z])", re.IGNORECASE)  # a whole word: TOKENIZERS is none
_ASSIGNED = re.compile(
    rf"""((?<![\w$])[\w.-]*(?<![A-Z])(?:{_WORD})(?![A-Z])[\w.-]*(?:["']\s*:\s*|\s*=\s*))"""  # 'HF_TOKEN': or HF_TOKEN=
    r"""("(?!\$)(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?![$`"'])[^\s,;&}\])]+)""",  # a value, and no $NAME of a shell
    re.IGNORECASE,
)
_TOKENS = re.compile(r"(?<![A-Za-z])tokens(?![A-Za-z])", re.IGNORECASE)
_NUMBER = re.compile(r"\d[\d.]*(?:e[-+]?\d+)?:?", re.IGNORECASE)  # and the colon of a refusal
_SHAPES = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),  # Hugging Face token
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),  # AWS access key
    re.compile(r"(?<=Bearer )[A-Za-z0-9._~+/=-]{8,}"),
)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(\S+)")
_HOST = re.compile(r"(?:[^:\[\]]*|\[[^\]]*\])\W*(?::(?:\d*|PORT)\W*)?", re.ASCII)  # and what follows it in a sentence
_SHORTEST = 8  # characters; a shorter value is found by its name alone, for the text may well hold it as a word
_SURE = 16  # characters; what is as long is hidden inside of a longer word too
_LONGEST = 48  # characters; of a longer value a message may show the start alone
_AROUND_A_NAME = "\"' \t:="
_known: dict[str, str] = {}  # secret → what is shown in its place


def remember(address: str, shown: str, more: Iterable[str] = ()) -> None:
    """Let `redact` show an address that this process was given as `shown`, and hide its parts and `more`."""
    hidden = {part for part in (*parts(address), *more) if len(part) >= _SHORTEST and not _is_ordinary(part)}
    _known.update(dict.fromkeys(hidden, HIDDEN) | {address: shown})


def redact(text: str) -> str:
    """The text with `***` in place of every secret.

    Those are: user, password and query of an address; what is assigned to a name like `HF_TOKEN`; tokens of a known
    shape; values of environment variables that are called like a secret, or that hold an address; what `remember` was
    told. A value that is a word of quantlab's own configuration, or a path on this machine, is one by its name alone.
    """
    secrets = dict.fromkeys([*_named_secrets().values(), *_in_addresses()], HIDDEN) | _known
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the start of another
        text = _without(text, secret, secrets[secret])
    text = _ASSIGNED.sub(lambda found: found[0] if _is_count(found) else found[1] + HIDDEN, bare(text))
    for shape in _SHAPES:
        text = shape.sub(HIDDEN, text)
    return text


def bare(value: Any) -> Any:
    """The same structure, and addresses in its strings without user, password and query; nothing else is touched."""
    if isinstance(value, str):
        return _ADDRESS.sub(lambda found: found[1] + _bare_rest(found[2]), value) if "://" in value else value
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(bare, value))
    return value


def exposed(text: str) -> str | None:
    """Why a setting must not hold this text, since settings are kept and printed; None where it may."""
    if bare(text) != text:
        return "an address with a user, a password or a query"
    if assigned := [found[1] for found in _ASSIGNED.finditer(text) if not _is_count(found)]:
        return f"the value of {assigned[0].strip(_AROUND_A_NAME)}"
    if any(shape.search(text) for shape in _SHAPES):
        return "what looks like a token"
    named = _named_secrets().items()
    return next((f"the value of {name}" for name, value in named if _without(text, value) != text), None)


def _is_count(assigned: re.Match[str]) -> bool:
    """A number of tokens: `max_new_tokens=64`."""
    return _TOKENS.search(assigned[1]) is not None and _NUMBER.fullmatch(assigned[2]) is not None


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def _bare_rest(rest: str) -> str:
    """What follows `scheme://`. Where user and password cannot be told from path and query, nothing of it stays."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    tail = rest[len(authority) :]
    _, at, host = authority.rpartition("@")
    if "@" in tail or not _HOST.fullmatch(host):
        return HIDDEN
    path, query, _ = tail.partition("#")[0].partition("?")
    return (f"{HIDDEN}@" if at else "") + host + (f"{path}?{HIDDEN}" if query else tail)


def _named_secrets() -> dict[str, str]:
    """Environment variables that are called like a secret, and whose value is none that a text may hold for itself."""
    return {
        name: value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and is_secret(name) and not _is_ordinary(value)
    }


def _in_addresses() -> set[str]:
    """What is secret of the addresses in the environment; a proxy may be named without its scheme."""
    values = [value for name, value in os.environ.items() if "://" in value or name.upper().endswith("_PROXY")]
    found = {part for value in values for part in parts(value)}
    return {part for part in found if len(part) >= _SHORTEST and not _is_ordinary(part)}


def parts(address: str) -> Iterator[str]:
    """What of an address is secret, in the forms that a library may print; of most addresses nothing is.

    Of one that breaks the rules (a password with a slash in it) everything before the last @ is user and password.
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
    """A word of the configuration that ships with quantlab, or a path: nobody's secret, whatever its name is."""
    if Path(value).is_absolute() and os.access(value, os.F_OK):
        return True
    word = re.compile(rf"(?<![\w-]){re.escape(value)}(?![\w-])")
    shipped = (path for name in ("conf", "experiments") for path in shared_dir(name).rglob("*.yaml"))
    return any(word.search(path.read_text(encoding="utf-8")) for path in shipped)
