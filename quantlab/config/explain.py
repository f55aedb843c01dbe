"""What pydantic found wrong, as a line per key: its dotted name, what it got, what is allowed."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from quantlab.config.key_names import nearest_key
from quantlab.util.errors import shortened, suggestion

_LONGEST_KEY = 80  # characters


def explained(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """The mistakes, one a line, misspelt keys first; `prefix` goes before the keys of `model`."""
    unknown = [_explain(item, model, prefix) for item in error.errors() if item["type"] == "extra_forbidden"]
    wrong = [_explain(item, model, prefix) for item in error.errors() if item["type"] != "extra_forbidden"]
    mistyped = [text for text in unknown if "did you mean" in text]
    others = [text for text in unknown if text not in mistyped]  # each with the list of what is allowed
    return [*([" ".join(mistyped)] if mistyped else []), *others, *wrong]


def _explain(item: Any, model: type[BaseModel], prefix: str) -> str:
    dotted = prefix + ".".join(str(part) for part in item["loc"])
    key = dotted if dotted.isprintable() and len(dotted) <= _LONGEST_KEY else shortened(dotted)
    if key.partition(".")[0] == "experiment":
        return "experiment: the first line of its YAML has to be: # @package _global_"
    if item["type"] == "extra_forbidden":
        return f"{key}: no such key{nearest_key(dotted, model, prefix)}"
    if item["type"] == "missing":
        return f"{key}: required, but not given"
    if item["type"] == "address":  # the value may hold a password
        return str(item["msg"])
    if item["type"] == "value_error":
        return item["msg"].removeprefix("Value error, ")
    return f"{key}={shortened(item['input'])}: {_allowed(item, key)}"


def _allowed(item: Any, key: str) -> str:
    """What is allowed: pydantic's message, or our own where pydantic's is about Python types."""
    own = {
        "bool_type": "expected true or false",
        "dict_type": "expected names with values, {NAME: VALUE}",
        "model_type": "expected keys with values, {KEY: VALUE}",
        "tuple_type": f"expected a list, e.g. {key}=[{str(item['input'])[:40]}]",
        "too_short": "give at least one, or null for all",
        "string_too_short": "it is empty",
    }
    told = own.get(item["type"]) or f"{item['msg'][0].lower()}{item['msg'][1:]}"
    names = re.findall("'([^']*)'", item.get("ctx", {}).get("expected", ""))  # of a Literal
    allowed = ["true", "false"] if "bool" in item["type"] else names
    return told + (suggestion(item["input"], allowed) if isinstance(item["input"], str) else "")
