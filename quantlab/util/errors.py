"""Errors that a user can fix: each message says what was given, what is allowed, what to do next."""

from __future__ import annotations

import difflib


class ConfigError(ValueError):
    """A configuration that cannot be run: the message names the key, what it got and what is allowed."""


class UnsupportedError(ConfigError):
    """A combination that the model does not allow, found after loading it: the cell is `unsupported`, not failed."""


class CheckpointError(ConfigError):
    """A folder without a valid checkpoint: its cells fail, cells of other checkpoints go on."""


class Unavailable(RuntimeError):  # noqa: N818  a state of the environment, not an error of the caller
    """A checkpoint or corpus that is neither on this machine nor on a reachable hub."""


class ExportError(ValueError):
    """A model that cannot be exported, or a folder that is not a valid export; the message says why."""


_FEW = 6  # names that are listed beside a suggestion
_ALSO_CALLED = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps"}  # by other tools, and not similar in spelling


def did_you_mean(name: str, allowed: list[str], prefix: str = "") -> str:
    """`; did you mean 'x'?`, and the allowed names if they are few or none is close; `prefix` goes before each."""
    if not allowed:
        return "; there is none"
    every = f"allowed: {', '.join(prefix + item for item in sorted(allowed))}"
    meant = suggestion(name, allowed, prefix)
    return f"{meant}{f' {every}' if len(allowed) <= _FEW else ''}" if meant else f"; {every}"


def suggestion(name: str, allowed: list[str], prefix: str = "") -> str:
    """`; did you mean 'x'?`, whatever the case of the letters; empty if no allowed name is close.

    A name that is the end of several (`int8` of `hqq_int8`, `bnb_int8`) may mean any of them.
    """
    name, spelt = name.lower(), {item.lower(): item for item in sorted(allowed)}
    if (meant := _ALSO_CALLED.get(name)) in allowed:
        return f"; did you mean '{prefix}{meant}'?"
    *others, last = [f"'{prefix}{spelt[item]}'" for item in spelt if name and item.endswith(f"_{name}")] or [""]
    if others:
        return f"; did you mean {', '.join(others)} or {last}?"
    begun = [item for item in sorted(spelt) if name and item.startswith(name)]
    near = begun or difflib.get_close_matches(name, spelt, n=1, cutoff=0.5)
    return f"; did you mean '{prefix}{spelt[near[0]]}'?" if near else ""


def shortened(value: object, characters: int = 80) -> str:
    """The repr of a value, on one line; a long one is cut, with its length."""
    text = repr(value)
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text):,} characters)"
