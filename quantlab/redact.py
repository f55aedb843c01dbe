"""Secrets out of everything that is kept: a record, a log line, MLflow."""

from __future__ import annotations

import os
import re
from typing import Any

HIDDEN = "***"
_PATTERNS = (
    re.compile(r"(?<=://)[^/?#@\s\"']+(?=@)"),  # scheme://user:password@host
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),  # Hugging Face token
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),  # AWS access key
    re.compile(r"(?<=Bearer )[A-Za-z0-9._~+/=-]{8,}"),
)
_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|ACCESS_KEY", re.IGNORECASE)
_SHORTEST = 8  # characters; a shorter value is more likely a flag than a secret


def redact(value: Any) -> Any:
    """The same structure with every credential in its strings replaced by `***`.

    Credentials are those in URIs, tokens of known shape, and the values of environment variables named
    like one. Only strings are looked at, so that a figure can never be hit.
    """
    return _redact(value, _secrets_of_environment())


def _redact(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return _redact_text(value, secrets)
    if isinstance(value, dict):
        return {key: _redact(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_redact(item, secrets) for item in value)
    return value


def _redact_text(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(HIDDEN, text)
    return text


def _secrets_of_environment() -> list[str]:
    found = [v for name, v in os.environ.items() if _SECRET_NAME.search(name) and len(v) >= _SHORTEST]
    return sorted(found, key=len, reverse=True)  # one may be the start of another
