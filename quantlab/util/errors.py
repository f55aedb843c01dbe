"""Errors that a user can fix: each message says what was given, what is allowed, what to do next."""

from __future__ import annotations

import difflib


class ConfigError(ValueError):
    """A configuration that cannot be run: the message names the key, what it got and what is allowed."""


class UnsupportedError(ConfigError):
    """A combination that cannot exist, as only the model itself shows: its cell is `unsupported`, no failure."""


class CheckpointError(ConfigError):
    """A folder that is there and holds no sound checkpoint: its cells fail, those of others go on."""


class Unavailable(RuntimeError):  # noqa: N818  it is a state of the world, no mistake of the caller
    """A checkpoint or a corpus is neither on this machine nor on a hub that can be reached."""


class ExportError(ValueError):
    """A model that cannot be left as a folder, or a folder that is none: the message names what is wrong with it."""


def did_you_mean(name: str, allowed: list[str], prefix: str = "") -> str:
    """`; did you mean 'x'?` for a near miss, else the allowed names; `prefix` goes before each."""
    if not allowed:
        return "; there is none"
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{prefix}{near[0]}'?"
    return f"; allowed: {', '.join(prefix + item for item in sorted(allowed))}"


def shortened(value: object, characters: int = 80) -> str:
    """A value as Python writes it, so that it is one line; of a long one the start, and how long it is."""
    text = repr(value)
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text):,} characters)"
